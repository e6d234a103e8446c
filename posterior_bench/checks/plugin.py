"""The checks of any plug-in by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import registry
from .findings import Finding
from .method import check_method
from .metric import check_metric
from .simulator import check_simulator

_CHECKS: dict[registry.Group, Callable[[Any], list[Finding]]] = {
    "simulators": check_simulator,
    "methods": check_method,
    "metrics": check_metric,
}


def check_plugin(name: str, options: Mapping[str, object] | None = None) -> list[Finding]:
    """Run the checks that fit a registered plug-in, or the class in ``file.py:Class``.

    Raises:
        PluginError: where there is none of that name, or it refuses its options.
    """
    group = registry.group_of(name)
    return _CHECKS[group](registry.build(group, name, options))
