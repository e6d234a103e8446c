"""Results into tables, figures and one page: a report is a pure function of a ``Results``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arviz_bridge import to_arviz
    from .page import write_report
    from .reference_table import reference_list
    from .summary import TaskSummary, summarise
    from .terminal import terminal_tables

__all__ = ["TaskSummary", "reference_list", "summarise", "terminal_tables", "to_arviz", "write_report"]

_HOME = {
    "TaskSummary": "summary",
    "reference_list": "reference_table",
    "summarise": "summary",
    "terminal_tables": "terminal",
    "to_arviz": "arviz_bridge",
    "write_report": "page",
}


def __getattr__(name: str) -> Any:
    """Import on first use: arviz, seaborn and matplotlib load only where a report is made."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
