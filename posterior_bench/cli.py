"""The command line. Everything it does is a call or two of the Python interface."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated, cast

import loky
import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import __version__, registry
from .checks import check_plugin
from .display import TerminalDisplay, plan_table
from .reference import Recipe, settings_of, write_reference
from .reference.terminal import StatusProgress, acceptance_table
from .reporting import reference_list, terminal_tables, write_report
from .running.collect import collect, estimate, time_left
from .running.plan import plan
from .running.results import Results
from .running.run import run
from .running.store import Store, default_root
from .running.suite import SuiteError, load_suite, shipped
from .runtime import cache_in, write_text

app = typer.Typer(
    name="posterior-bench",
    help="Which Bayesian inference method can be trusted on your simulator, and at what cost?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

SuiteArgument = Annotated[str, typer.Argument(help="A shipped suite (see `list suites`) or the path of a TOML file.")]
StoreOption = Annotated[
    Path | None, typer.Option(help="Folder of simulations, fits, rows [default: $POSTERIOR_BENCH_STORE, or a cache].")
]
OnlyOption = Annotated[
    list[str] | None, typer.Option(help="Only these: task/method, task, method or job id; * matches anything.")
]


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="simulators, methods, metrics or suites; all by default.")] = "all",
) -> None:
    """List what is installed."""
    groups = ("simulators", "methods", "metrics", "suites")
    if what not in (*groups, "all"):
        raise typer.BadParameter(registry.unknown("group", what, groups))
    for group in groups:
        if what in (group, "all"):
            console.print(_listing(group))


@app.command("run")
def run_(
    suite: SuiteArgument,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the jobs and the estimated time; run none.")
    ] = False,
    only: OnlyOption = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes of one thread each; 0 runs in this one [default: one a core].")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    store: StoreOption = None,
    retry: Annotated[bool, typer.Option("--retry", help="Do failed jobs again.")] = False,
) -> None:
    """Run those jobs of a suite that are missing, then print its tables and write its page."""
    place = Store(store or default_root())
    definition = load_suite(suite)
    jobs = plan(definition, only or ())
    slots = loky.cpu_count() if workers is None else workers
    check_device(device)
    seconds, unknown = time_left(jobs, place, slots)
    parts = f", and {unknown} parts of unknown length" if unknown else ""
    console.print(
        f"Suite [bold]{escape(definition.name)}[/]: about {_duration(seconds)} on {max(1, slots)} cores{parts}."
    )
    if dry_run:
        done = [place.read_rows(job) is not None for job in jobs]
        console.print(plan_table(jobs, done, [estimate(job, place) for job in jobs]))
        return
    display = TerminalDisplay(console)
    try:
        outcome = run(jobs, place, slots, device, retry, display)
    except KeyboardInterrupt:
        errors.print("Interrupted. Nothing done is lost: the same command goes on from here.")
        raise typer.Exit(130) from None
    finally:
        display.close()
    _report(collect(definition, place, suite, only or ()), place.root / "reports" / definition.name)
    for cell, reason in outcome.reasons.items():
        errors.print(f"[red]failed[/] {escape(cell)}: {escape(reason)}")
    if outcome.failed:
        errors.print(f"{outcome.failed} of {len(jobs)} jobs failed; --retry does them again.")
        raise typer.Exit(1)


@app.command()
def report(
    suite: SuiteArgument,
    publish: Annotated[bool, typer.Option("--publish", help="Write to reports/SUITE/ here, rows included.")] = False,
    only: OnlyOption = None,
    store: StoreOption = None,
) -> None:
    """Print the tables of what is done of a suite and write its page."""
    place = Store(store or default_root())
    definition = load_suite(suite)
    results = collect(definition, place, suite, only or ())
    if not results.jobs:
        raise SuiteError(f"nothing of suite {definition.name!r} is done in {place.root}; begin with: {results.command}")
    folder = Path("reports") / definition.name if publish else place.root / "reports" / definition.name
    for old in ("tables", "figures", "rows"):  # of an earlier run, when the suite may have had other tasks
        shutil.rmtree(folder / old, ignore_errors=True)
    _report(results, folder)
    if publish:
        publish_rows(results, place, folder)


@app.command()
def show(
    job: Annotated[str, typer.Argument(help="A job's id, or the beginning of it.")], store: StoreOption = None
) -> None:
    """Print the rows and the cost of a job."""
    place = Store(store or default_root())
    try:
        found = place.find_rows(job)
    except ValueError as error:
        raise SuiteError(str(error)) from error
    if len(found) != 1:
        names = ", ".join(path.stem for path in found) or "none"
        raise SuiteError(f"{len(found)} jobs in {place.root} begin with {job!r} (found: {names}); expected one")
    rows = [json.loads(line) for line in found[0].read_text(encoding="utf-8").splitlines()]
    first = rows[0]
    console.print(
        f"{first['task']} / {first['method']}, budget {first['budget']:,}, repetition {first['repetition']}: "
        f"{first['status']} {escape(first['reason'])}"
    )
    console.print(
        f"options {escape(json.dumps(first['options']))}, {first['calls']} simulations, {first['invalid']} failed"
    )
    table = Table("metric", "value", "standard error", "null band (95 %)")
    for row in rows:
        if row["metric"] is not None:
            band = "" if row["null_low"] is None else f"{row['null_low']:.4g} .. {row['null_high']:.4g}"
            spread = "" if row["std_error"] is None else f"{row['std_error']:.2g}"
            value = "not finite" if row["value"] is None else f"{row['value']:.5g}"
            table.add_row(escape(row["metric"]), value, spread, band)
    console.print(table)
    cost = found[0].with_suffix(".cost.json")
    if cost.exists():
        console.print_json(cost.read_text(encoding="utf-8"))
    console.print(f"rows: {found[0]}", soft_wrap=True)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A simulator, method or metric: its name, or file.py:Class.")],
    options: Annotated[str, typer.Option(help="Options as JSON.")] = "{}",
    store: StoreOption = None,
) -> None:
    """Check that a plug-in keeps its contract; say what it breaks and the likely cure."""
    chosen = _json_option("--options", options)
    with cache_in(Store(store or default_root()).cache):
        findings = check_plugin(name, chosen)
    for finding in findings:
        mark = "[green]ok[/]    " if finding.ok else "[red]broken[/]"
        console.print(f"{mark} {escape(finding.name)}" + (f": {escape(finding.message)}" if finding.message else ""))
    broken = sum(not finding.ok for finding in findings)
    console.print(f"{len(findings)} checks, {broken} broken")
    if broken:
        raise typer.Exit(1)


@app.command("reference")
def reference_(
    simulator: Annotated[str | None, typer.Argument(help="A simulator: its name, or file.py:Class.")] = None,
    options: Annotated[str, typer.Option(help="The simulator's options as JSON.")] = "{}",
    measurements: Annotated[int, typer.Option(min=1, help="Measurements, simulated for the purpose.")] = 200,
    draws: Annotated[int, typer.Option(min=2, help="Draws of each posterior.")] = 1000,
    recipe: Annotated[str, typer.Option(help="Settings of the engine as JSON.")] = "{}",
    record: Annotated[
        Path | None, typer.Option(help="Make again what this record.json tells of, in place of all of the above.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    out: Annotated[Path, typer.Option(help="It is written to OUT/references/.")] = Path("."),
    store: StoreOption = None,
) -> None:
    """Make reference posteriors with their normalising constants, and say whether they are to be relied on."""
    if (simulator is None) == (record is None):
        raise typer.BadParameter("give either a simulator or --record")
    chosen = _json_option("--options", options)
    try:
        settings = settings_of(_json_option("--recipe", recipe))
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(f"--recipe: {error}") from error
    check_device(device)
    try:
        if record is not None:
            made_of = Recipe.read(record)
        else:
            made_of = Recipe(cast(str, simulator), chosen, measurements, draws, settings)
        with cache_in(Store(store or default_root()).cache), StatusProgress(console) as progress:
            found = made_of.make(device, progress)
    except (TypeError, ValueError, ArithmeticError, OSError) as error:
        raise SuiteError(f"no reference for {simulator or record}: {error}") from error
    folder = write_reference(out, found)
    write_text(folder.parent / "README.md", reference_list(folder.parent))
    console.print(acceptance_table(found.record))
    console.print(f"Draws by {escape(str(found.record['how']))}. Written to {folder.resolve()}", soft_wrap=True)
    if not found.accepted:
        errors.print("[red]not accepted[/]: raise what its recipe says of the items that failed, and make it again.")
        raise typer.Exit(1)


def main() -> None:
    """Entry point: an error that a user can mend is one message, not a traceback."""
    try:
        app()
    except (SuiteError, registry.PluginError) as error:
        errors.print(f"[red]error[/]: {escape(str(error))}")
        sys.exit(2)


def _version(value: bool) -> None:
    if value:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def check_device(device: str) -> None:
    """Raise ``SuiteError`` where torch cannot use the device."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SuiteError(
            f"device {device!r} cannot be used here: {str(error).splitlines()[0]}; try --device cpu"
        ) from error


def publish_rows(results: Results, store: Store, folder: Path) -> None:
    """Copy the rows of every job beside its report."""
    for job in results.jobs:
        for path in store.find_rows(job.job):
            place = folder / "rows" / path.relative_to(store.root / "rows")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def _report(results: Results, folder: Path) -> None:
    for table in terminal_tables(results):
        console.print(table)
    page = write_report(results, folder)
    console.print(f"The page: {page.resolve()}", soft_wrap=True)


def _json_option(name: str, text: str) -> dict:
    """A JSON object given as an option."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"{name} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f'{name} is {text}; expected a JSON object such as {{"name": 1}}')
    return found


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _listing(group: registry.Group | str) -> Table:
    table = Table(title=str(group), title_justify="left")
    if group == "suites":
        for heading in ("name", "what it compares"):
            table.add_column(heading)
        for name in shipped():
            table.add_row(name, escape(load_suite(name).title))
        return table
    for heading in ("name", "comes from", "what it is"):
        table.add_column(heading)
    for name, point in sorted(registry.names(cast(registry.Group, group)).items()):
        table.add_row(name, point.value, escape(_first_line(cast(registry.Group, group), name)))
    return table


def _first_line(group: registry.Group, name: str) -> str:
    try:
        text = registry.load(group, name).__doc__ or ""
    except registry.PluginError as error:
        return f"broken: {error}"
    return text.strip().split("\n")[0]
