"""What is written down of how a reference was made: enough to make it again, and to see how far to trust it."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

from torch import Tensor

from .acceptance import DIFFERENCE, Check, accepted
from .importance import ImportanceResult
from .routes import Routes, SecondRoute

SCHEMA = 1
"""Version of the record's layout. Raise it when a field is added, removed or changes its meaning."""

STREAMS = ("measurements", "flow", "surrogate", "own draws", "pseudo-truths")
"""Streams of random numbers that are not of a part of the measurements."""

PACKAGES = ("posterior_bench", "torch", "numpy", "zuko")


def make_record(
    routes: Routes,
    y: Tensor,
    theta: Tensor,
    how: str,
    first: ImportanceResult | None,
    second: SecondRoute | None,
    error: Tensor,
    checks: Sequence[Check],
) -> dict:
    """The record of a reference as JSON can hold it; a number that is not finite is ``None``.

    Args:
        routes: simulator and recipe.
        y: (B, *y_shape).
        theta: (n, B, D).
        how: where draws and log Z come from, in words.
        first, second: what the routes said, where they were taken.
        error: (B,), standard error of log Z.
        checks: the list of acceptance.
    """
    spec = routes.simulator.spec
    diagnostics: dict[str, list[float | None]] = {}
    results = {"": first, "route_two_": second, "route_two_importance_": None if second is None else second.importance}
    for prefix, result in results.items():
        for name, value in () if result is None else vars(result).items():
            if isinstance(value, Tensor) and value.dim() == 1:
                diagnostics[prefix + name] = _plain(value)
    if second is not None:
        diagnostics["tempered_log_evidence"] = _plain(second.tempered.logsumexp(0) - math.log(len(second.tempered)))
    difference = next(check for check in checks if check.criterion is DIFFERENCE)
    return {
        "schema": SCHEMA,
        "simulator": spec.name,
        "simulator_version": spec.version,
        "options": routes.options,
        "how": how,
        "measurements": len(y),
        "draws": len(theta),
        "settings": asdict(routes.settings),
        "seeds": {stream: routes.seed(stream) for stream in STREAMS} | {"parts": "seed_for(..., stream, first index)"},
        "versions": _versions(),
        "accepted": accepted(checks),
        "acceptance": [check.record() for check in checks],
        "achieved_error": {
            "log_evidence_error": _plain(error.max()[None])[0],
            "log_evidence_difference": difference.record()["value"],
        },
        "diagnostics": diagnostics,
    }


def _plain(values: Tensor) -> list[float | None]:
    """Numbers as JSON has them."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
