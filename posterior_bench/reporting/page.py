"""The report: tables and figures as files, one HTML page that needs nothing else, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..running.results import Results
from ..runtime import write_text
from .across import Across, across_tasks
from .calibration_figures import calibration_figures, rank_figure
from .contenders import anchor_roles, method_key, options_text, short_labels
from .control_tables import control_tables
from .cost_figures import cost_figure, training_figure
from .drawing import Illustration
from .failures import trouble_table, undone_table
from .formats import escape_markdown, table_to_csv, to_csv, to_latex, to_markdown
from .heat_figures import coverage_figure, skill_figure
from .latent_figures import latent_figures
from .learning_figures import learning_figure
from .narrative import DEFINITIONS, Verdict, verdict
from .picture_figures import picture_figure
from .posterior_figures import joint_figure, marginal_figure
from .published import published_table
from .reference_table import reference_table
from .remarks import remarks_html, remarks_markdown
from .score_tables import DEFINITIONS as SCORE_DEFINITIONS
from .score_tables import score_table
from .settings import compares_settings, settings_table
from .signal_figures import signal_figures
from .signal_tables import DEFINITIONS as SIGNAL_DEFINITIONS
from .signal_tables import estimates_table, signals_table
from .style import Look, looks
from .summary import TaskSummary, summarise
from .tables import (
    Table,
    cost_table,
    fits_table,
    jobs_table,
    main_table,
    parameter_tables,
)
from .trial_figures import LEGIBLE, trials_figure

TERMS = DEFINITIONS + SCORE_DEFINITIONS + SIGNAL_DEFINITIONS

NO_FAILURE = "Every job that was run succeeded."

LISTED = 30
"""Jobs whose commands the Markdown page lists itself."""


@dataclass(frozen=True, eq=False)
class Section:
    """What the page says of one task at one budget.

    ``beside`` are further tables that are shown at once, ``controls`` those of what each score flags.
    """

    summary: TaskSummary
    verdict: Verdict
    table: Table
    beside: tuple[Table, ...]
    parameters: tuple[Table, ...]
    figures: tuple[Illustration, ...]
    controls: tuple[Table, ...] = ()


def write_report(results: Results, folder: Path) -> Path:
    """Write the report of ``results`` into ``folder`` and return the path of its page, ``index.html``.

    Besides it: ``README.md``, ``tables/`` (Markdown, CSV, LaTeX; ``numbers.csv`` holds every number exactly) and
    ``figures/`` (PNG, and SVG where it is not very large). The same results give the same bytes. Files of other names
    are left alone.
    """
    results = short_labels(results)
    look = report_looks(results)
    sections = _sections(results, look)
    summaries = [section.summary for section in sections]
    crowded = any(len(summary.scored) > LEGIBLE for summary in summaries)
    overview = (trials_figure if crowded else cost_figure)(summaries, look)
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections:
        _write_table(folder, section.table)
        for table in (*section.beside, *section.parameters, *section.controls):
            _write_table(folder, table)
    settings = settings_table(results, summaries)
    across = across_tasks(summaries)
    for table in (settings, cost_table(results), jobs_table(results), *(across.tables if across else ())):
        _write_table(folder, table)
    for table in (trouble_table(results), undone_table(results)):
        _write_table(folder, table)
    write_text(folder / "tables" / "numbers.csv", to_csv(results, summaries))
    (folder / "figures").mkdir(exist_ok=True)
    figures = [f for section in sections for f in section.figures] + ([overview] if overview else [])
    for figure in figures:
        if figure.light:
            (folder / "figures" / f"{figure.name}.svg").write_bytes(figure.svg)
        (folder / "figures" / f"{figure.name}.png").write_bytes(figure.png)
    write_text(folder / "README.md", _readme(results, sections, overview, settings, across))
    path = folder / "index.html"
    write_text(path, _html(results, sections, overview, settings, look, across))
    return path


def report_looks(results: Results) -> dict[str, Look]:
    """Colour, line and marker of each method, the same in every figure and table of a report."""
    roles = anchor_roles(results)
    exact, others = ({key for key, role in roles.items() if role == wanted} for wanted in ("reference", "anchor"))
    return looks([key for key, role in roles.items() if role != "flawed"], exact, others)


def _sections(results: Results, look: Mapping[str, Look]) -> tuple[Section, ...]:
    """A section for each task and budget. Single posteriors are shown at a task's largest budget alone."""
    found = []
    for _, group in groupby(summarise(results), key=lambda summary: summary.info.name):
        summaries = list(group)
        for summary in summaries:
            last = summary is summaries[-1]
            found.append(_section(summary, results, look, summaries if last else []))
    return tuple(found)


def _section(
    summary: TaskSummary, results: Results, look: Mapping[str, Look], budgets: Sequence[TaskSummary]
) -> Section:
    """A section; ``budgets`` are the summaries of its task where it is the one of the largest budget, else none.

    Of more methods than can be told apart there are no curves and densities, but boards and tables.
    """
    legible = len(summary.scored) <= LEGIBLE
    figures = [skill_figure(summary, look), coverage_figure(summary, look)]
    figures += calibration_figures(summary, look) if legible else []
    beside = [estimates_table(summary), signals_table(summary), score_table(summary), fits_table(summary)]
    if budgets and legible:
        figures += [
            rank_figure(summary, look, results.draws),
            learning_figure(budgets, look),
            marginal_figure(summary, look),
            joint_figure(summary, look),
            picture_figure(summary, look),
            *latent_figures(summary, look),
            training_figure(summary, look),
        ]
    if budgets:
        figures += signal_figures(summary, look)
    shown = (None, summary.budget) if budgets else (summary.budget,)
    own = [p for p in results.published if p.task == summary.info.name and p.budget in shown]
    beside += [published_table(published, summary, i) for i, published in enumerate(own)]
    if budgets:
        beside.append(reference_table(summary))
    return Section(
        summary=summary,
        verdict=verdict(summary),
        table=main_table(summary, results),
        beside=tuple(table for table in beside if table is not None),
        parameters=parameter_tables(summary),
        figures=tuple(figure for figure in figures if figure is not None),
        controls=control_tables(summary) if budgets else (),
    )


def _write_table(folder: Path, table: Table) -> None:
    write_text(folder / "tables" / f"{table.name}.md", "\n".join(_markdown_table(table)))
    write_text(folder / "tables" / f"{table.name}.csv", table_to_csv(table))
    write_text(folder / "tables" / f"{table.name}.tex", to_latex(table))


def _markdown_table(table: Table) -> Iterator[str]:
    for part in table.parts():
        yield f"**{escape_markdown(part.caption)}**\n"
        yield to_markdown(part)
    yield from (f"- {escape_markdown(note)}" for note in table.notes)
    yield ""


def _html(
    results: Results,
    sections: tuple[Section, ...],
    overview: Illustration | None,
    settings: Table,
    look: Mapping[str, Look],
    across: Across | None,
) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, auto_reload=False
    )
    roles = anchor_roles(results)
    return environment.get_template("page.html.j2").render(
        results=results,
        methods=[key for key, role in roles.items() if not role],
        sections=sections,
        cost_figure=overview,
        cost=cost_table(results),
        settings=settings,
        settings_first=compares_settings(results),
        trouble=trouble_table(results),
        no_failure=NO_FAILURE,
        undone=undone_table(results),
        jobs=[(job, results.labels[method_key(results, job)]) for job in results.jobs],
        definitions=TERMS,
        across=across,
        looks=look,
        description=remarks_html(results.description),
        remarks=remarks_html(results.remarks),
        runs=_runs,
        options_text=options_text,
    )


def _runs(table: Table) -> list[tuple[str, int]]:
    """Groups of neighbouring columns with the number of columns in each."""
    return [(group, len(list(columns))) for group, columns in groupby(table.columns, key=lambda c: c.group)]


def _readme(
    results: Results,
    sections: tuple[Section, ...],
    overview: Illustration | None,
    settings: Table,
    across: Across | None,
) -> str:
    return "\n".join(_readme_lines(results, sections, overview, settings, across)) + "\n"


def _readme_lines(
    results: Results,
    sections: tuple[Section, ...],
    overview: Illustration | None,
    settings: Table,
    across: Across | None,
) -> Iterator[str]:
    yield f"# {escape_markdown(results.title)}\n"
    if results.description:
        yield f"{remarks_markdown(results.description)}\n"
    yield (
        f"{results.measurements:,} test measurements a task, {results.draws:,} posterior draws for each. The same "
        "report as one page that needs no other file: [index.html](index.html). Every number, exact: "
        "[tables/numbers.csv](tables/numbers.csv).\n"
    )
    if results.remarks:
        yield f"## Remarks\n\n{remarks_markdown(results.remarks)}\n"
    first = compares_settings(results)
    if first:
        yield from ("## Settings\n", *_markdown_table(settings))
    if across is not None:
        yield f"## Across tasks\n\n{escape_markdown(across.verdict)}\n"
        for table in across.tables:
            yield from _markdown_table(table)
    for section in sections:
        summary = section.summary
        yield f"## {escape_markdown(summary.title)}\n"
        yield f"{escape_markdown(section.verdict.text)}\n"
        for table in (section.table, *section.beside):
            yield from _markdown_table(table)
        tables = ", ".join(
            f"[{t.name.removeprefix(summary.name + '-')}](tables/{t.name}.md)" for t in section.parameters
        )
        if tables:
            yield f"By parameter: {tables}.\n"
        if section.controls:
            yield "### What each score flags\n"
        for table in section.controls:
            yield from _markdown_table(table)
        for figure in section.figures:
            yield from _markdown_figure(figure)
    if not first:
        yield from ("## Settings\n", *_markdown_table(settings))
    if overview is not None:
        yield "## Cost\n"
        yield from _markdown_figure(overview)
    yield to_markdown(cost_table(results))
    trouble = trouble_table(results)
    yield "## Failures\n"
    yield to_markdown(trouble) if trouble.lines else f"{NO_FAILURE}\n"
    if results.undone:
        yield from _markdown_table(undone_table(results))
    yield "## Definitions\n"
    yield from (f"- **{term}.** {escape_markdown(meaning)}" for term, meaning in TERMS)
    yield f"\n## Reproduce\n\n    {' '.join(results.command.split())}\n"
    if len(results.jobs) > LISTED:
        yield f"The commands that show each of {len(results.jobs)} jobs and make it again: [jobs](tables/jobs.md)."
    else:
        yield "A single job is made again and shown by\n"
    for job in results.jobs if len(results.jobs) <= LISTED else ():
        name = f"{job.rows[0].task}, {escape_markdown(results.labels[method_key(results, job)])}"
        yield f"- {name}: `posterior-bench show {job.job}`, `{' '.join(job.command.split()).replace('`', '')}`"
    versions = ", ".join(f"{escape_markdown(n)} {escape_markdown(v)}" for n, v in sorted(results.environment.items()))
    yield f"\nMade with {versions}." if versions else ""


def _markdown_figure(figure: Illustration) -> Iterator[str]:
    alt = escape_markdown(figure.alt)
    yield f"### {escape_markdown(figure.title)}\n\n![{alt}](figures/{figure.name}.png)\n"
    yield f"{escape_markdown(figure.caption)}\n"
