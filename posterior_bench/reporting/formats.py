"""Tables as Markdown, LaTeX and CSV. Whatever a user named is escaped: a label is text in every format."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields

from ..running.results import Cost, Results
from .contenders import options_text
from .summary import TaskSummary
from .tables import Cell, Line, Table

_MARKDOWN = re.compile(r"([\\`*_\[\]|#~$])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "−": "$-$",
    "–": "--",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "µ": r"\textmu{}",
    "μ": r"\textmu{}",
    "°": r"\textdegree{}",
    "²": r"\textsuperscript{2}",
}


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line.

    >>> escape_markdown("a|b <i>_c_")
    'a\\\\|b &lt;i&gt;\\\\_c\\\\_'
    """
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", plain)


def escape_latex(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> print(escape_latex("50 % of a_b"))
    50 \% of a\_b
    """
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def to_markdown(table: Table) -> str:
    """A table as GitHub reads it: the null band in brackets, anchors in italics, bad values in bold."""
    head = [_markdown_head(table, i) for i in range(len(table.columns))]
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    body = [[_markdown_cell(cell, line) for cell in line.cells] for line in table.lines]
    lines = [f"| {' | '.join(row)} |" for row in (head, rule, *body)]
    return "\n".join(lines) + "\n"


def _markdown_head(table: Table, index: int) -> str:
    column = table.columns[index]
    text = escape_markdown(column.head)
    if [other.head for other in table.columns].count(column.head) > 1:
        text = f"{escape_markdown(column.group)}:<br>{text}"  # here no line of groups stands above the heads
    return f"{text}<br>{escape_markdown(column.unit)}" if column.unit else text


def _markdown_cell(cell: Cell, line: Line) -> str:
    text = escape_markdown(cell.text)
    if cell.tone == "bad":
        text = f"**{text}**"
    elif line.anchor and text not in ("", "–"):
        text = f"*{text}*"
    return f"{text} ({escape_markdown(cell.detail)})" if cell.detail else text


def to_latex(table: Table) -> str:
    r"""A table for ``\usepackage{booktabs}`` and T1 fonts; one tabular for each of its parts."""
    blocks = [_tabular(part) for part in table.parts()]
    notes = " ".join(table.notes)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{escape_latex(table.caption + '. ' + notes if notes else table.caption)}}}",
            rf"\label{{tab:{re.sub(r'[^A-Za-z0-9-]', '-', table.name)}}}",
            "\n\\par\\medskip\n".join(blocks),
            r"\end{table}",
            "",
        ]
    )


def _tabular(table: Table) -> str:
    alignment = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [rf"\begin{{tabular}}{{@{{}}{alignment}@{{}}}}", r"\toprule"]
    groups = [column.group for column in table.columns]
    if any(groups):
        spans, rules, start = [], [], 0
        for end in range(1, len(groups) + 1):
            if end == len(groups) or groups[end] != groups[start]:
                spans.append(rf"\multicolumn{{{end - start}}}{{c}}{{{escape_latex(groups[start])}}}")
                rules.append(rf"\cmidrule(lr){{{start + 1}-{end}}}")
                start = end
        lines += [" & ".join(spans) + r" \\", " ".join(rules)]
    lines.append(" & ".join(escape_latex(column.head) for column in table.columns) + r" \\")
    if any(column.unit for column in table.columns):
        lines.append(" & ".join(escape_latex(column.unit) for column in table.columns) + r" \\")
    lines.append(r"\midrule")
    anchored = False
    for line in table.lines:
        if line.anchor and not anchored and line is not table.lines[0]:
            lines.append(r"\midrule")
        anchored = anchored or line.anchor
        lines.append(" & ".join(_latex_cell(cell) for cell in line.cells) + r" \\")
        if any(cell.detail for cell in line.cells):
            lines.append(" & ".join(_latex_detail(cell) for cell in line.cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    return rf"\textbf{{{text}}}" if cell.tone == "bad" else text


def _latex_detail(cell: Cell) -> str:
    return rf"{{\scriptsize {escape_latex(cell.detail)}}}" if cell.detail else ""


def to_csv(results: Results, summaries: Iterable[TaskSummary]) -> str:
    """Every number over the whole test set, exact, one a line; costs too. Fractions, not per cent."""
    head = (
        "task", "budget", "place", "method", "label", "role", "options", "metric", "informed", "value", "fits",
        "failed", "skipped", "sd_over_fits", "std_error", "null_low", "null_high",
    )  # fmt: skip
    rows: list[tuple[object, ...]] = []
    for summary in summaries:
        for c in (*summary.contenders, *summary.controls):
            counts = [sum(job.status == status for job in c.jobs) for status in ("failed", "skipped")]
            place = c.ranked.place if c.ranked is not None and not c.role else None
            options = options_text(c.jobs[0].rows[0].options)
            first = (summary.info.name, c.budget, place, c.key, c.label, c.role, options)
            for metric, found in sorted(c.scores.items()):
                _, _, parameter = metric.partition("/")
                known = parameter in summary.names
                informed = parameter in summary.informed if known else None
                value, fits, *rest = astuple(found)
                rows.append((*first, metric, informed, value, fits, *counts, *rest))
            for field in fields(Cost):
                if field.name in ("device", "threads", "versions"):
                    continue
                cost = c.cost(field.name)
                if cost is not None:
                    rows.append((*first, field.name, None, cost, len(c.done), *counts, None, None, None, None))
            if not c.scores:
                rows.append((*first, None, None, None, 0, *counts, None, None, None, None))
    return _csv(head, rows)


def table_to_csv(table: Table) -> str:
    """A table as it is printed: each cell, and what places it in a column of its own."""
    heads = [column.head for column in table.columns]
    groups = [f"{column.group}: " if heads.count(column.head) > 1 else "" for column in table.columns]
    named = zip(groups, table.columns, strict=True)
    head = [text for group, column in named for text in (group + column.full, f"{group}{column.head} detail")]
    rows = [[text for cell in line.cells for text in (cell.text, cell.detail)] for line in table.lines]
    used = [i for i in range(len(head)) if i % 2 == 0 or any(row[i] for row in rows)]
    return _csv([head[i] for i in used], [[row[i] for i in used] for row in rows])


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return out.getvalue()
