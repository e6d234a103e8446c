"""What a check finds, and how checks are run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from functools import partial
from typing import Any

from ..runtime import scope, seed_for


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Args:
        name: of the check.
        ok: whether the plug-in passed.
        message: what was found; where it failed, also what was expected and the likely cure.
    """

    name: str
    ok: bool
    message: str


class Failure(Exception):
    """Raised by a check that a plug-in fails."""

    def __init__(self, found: str, expected: str, cure: str) -> None:
        super().__init__(f"found {found}; expected {expected}. {cure}")


def require_frozen_defaults(plugin: Any) -> set[str]:
    """The names of a plug-in's options.

    Raises:
        Failure: unless its class is a frozen dataclass whose options all have defaults.
    """
    cls = type(plugin)
    parameters = getattr(cls, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise Failure(f"{cls.__name__}, which is no frozen dataclass", "one", "Decorate it: @dataclass(frozen=True).")
    options = [f for f in dataclasses.fields(plugin) if f.init]
    required = [f.name for f in options if MISSING is f.default and MISSING is f.default_factory]
    if required:
        raise Failure(f"options without a default: {required}", "a default for every option", "Give them defaults.")
    return {f.name for f in options}


def run(checks: Sequence[partial[str]], essential: int = 0) -> list[Finding]:
    """Run checks, each with seeds of its own, so that a finding repeats and depends on no other.

    Args:
        checks: partials of functions; a function's name is the check's.
        essential: the first so many must pass for the rest to mean anything; they are left out where one fails.
    """
    findings: list[Finding] = []
    for position, check in enumerate(checks):
        name = check.func.__name__.lstrip("_")
        try:
            with scope(seed_for("check", name)):
                findings.append(Finding(name, True, check()))
        except Failure as failure:
            findings.append(Finding(name, False, str(failure)))
        except Exception as error:
            findings.append(Finding(name, False, f"raised {type(error).__name__}: {error}"))
        if position < essential and not findings[-1].ok:
            break
    return findings
