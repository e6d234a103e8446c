"""How a run looks on a terminal: a bar for the whole, a line for each running unit, a line for each that ended."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .running.collect import Estimate
from .running.plan import Job
from .running.run import Unit

_MARK = {"ok": "[green]done[/]", "skipped": "[yellow]skipped[/]", "failed": "[red]failed[/]"}


class TerminalDisplay:
    """Progress bars by Rich; where the output is no terminal, a line for each unit that ended."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.total = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self.live: Live | None = None

    def begin(self, units: Sequence[Unit], reused: int) -> None:
        """Open the display."""
        if reused:
            self.console.print(f"{reused} jobs are done already and are used as they are.")
        if units:
            self.bar = self.total.add_task("all", total=len(units))
            if self.console.is_terminal:
                self.live = Live(self.total, console=self.console, refresh_per_second=4, transient=True)
                self.live.start()

    def tick(self, running: Sequence[tuple[Unit, float, dict]]) -> None:
        """Show what runs."""
        if self.live is None:
            return
        lines = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[told]}"),
            console=self.console,
        )
        for unit, seconds, told in running:
            told_text = f"{seconds:4.0f} s  {escape(str(told.get('message', '')))}"
            total = told.get("total")
            lines.add_task(escape(unit.title), total=total, completed=told.get("done", 0), told=told_text)
        self.live.update(Group(self.total, lines))

    def end(self, unit: Unit, status: str, reason: str, seconds: float) -> None:
        """Count a unit, and print its line if it is a job, failed, or took long."""
        self.total.advance(self.bar)
        if unit.job is None and not reason and seconds < 5:
            return  # chunks of a quick simulator come by the dozen
        detail = f": {escape(reason)}" if reason else f" in {seconds:.0f} s"
        self.console.print(f"{_MARK[status]} {escape(unit.title)}{detail}", highlight=False)

    def close(self) -> None:
        """Close the display."""
        if self.live is not None:
            self.live.stop()


def plan_table(jobs: Sequence[Job], done: Sequence[bool], estimates: Sequence[Estimate]) -> Table:
    """The jobs of a plan with the time each will take on one core."""
    table = Table(title=f"{len(jobs)} jobs, {sum(done)} of them done", title_justify="left")
    for heading in ("job", "task", "method", "budget", "repetition", "state"):
        table.add_column(heading, justify="right" if heading in ("budget", "repetition") else "left")
    table.add_column("seconds", justify="right")
    for job, is_done, guess in zip(jobs, done, estimates, strict=True):
        if is_done:
            state, seconds = "done", ""
        elif job.missing:
            state, seconds = f"will be skipped: needs {', '.join(job.missing)}", ""
        else:
            state, seconds = "to do", "?" if guess.seconds is None else f"{guess.seconds:.0f}"
        table.add_row(job.id, job.task, job.label, f"{job.budget:,}", str(job.repetition), state, seconds)
    return table
