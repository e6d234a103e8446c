"""A reference on a terminal: how far its making is, and the list by which it is accepted."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_MARK = {"passed": "[green]passed[/]", "failed": "[red]failed[/]", "missing": "[red]missing[/]"}
_SIGN = {"at least": "≥", "at most": "≤", "below": "<"}

NAMED = 12
"""Failing measurements that a line names at most."""


class StatusProgress:
    """One line that says what is done; nothing where the output is no terminal."""

    def __init__(self, console: Console) -> None:
        self.status = console.status("beginning")

    def __enter__(self) -> StatusProgress:
        self.status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.status.stop()

    def update(self, done: int, total: int, message: str = "") -> None:
        """Say that ``done`` of ``total`` steps of the present stage are taken."""
        self.status.update(f"{escape(message)}: {done} of {total}")


def acceptance_table(record: Mapping[str, Any]) -> Table:
    """The list of acceptance of a reference's record, an item a row."""
    verdict = "accepted" if record["accepted"] else "not accepted"
    title = f"{record['simulator']}: {record['measurements']} measurements, {record['draws']} draws each: {verdict}"
    table = Table(title=escape(title), title_justify="left")
    for heading in ("item", "value", "threshold", "outcome", "remark"):
        table.add_column(heading, justify="right" if heading in ("value", "threshold") else "left")
    for item in record["acceptance"]:
        value = item["value"]
        shown = "" if value is None else value if isinstance(value, str) else f"{value:.4g}"
        failed = item["failed"]
        names = ", ".join(map(str, failed[:NAMED])) + (" ..." if len(failed) > NAMED else "")
        remark = "; ".join(part for part in (f"measurements {names}" if failed else "", item["note"]) if part)
        table.add_row(
            item["name"],
            shown,
            f"{_SIGN[item['relation']]} {item['threshold']:g}",
            _MARK.get(item["status"], item["status"]),
            escape(remark),
        )
    return table
