"""A recipe: all that a reference is made of, so that its record is enough to make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch

from .. import registry
from ..contracts import Progress
from .engine import Reference, make_reference
from .record import SCHEMA
from .settings import Settings


@dataclass(frozen=True)
class Recipe:
    """What ``make`` makes a reference of.

    Args:
        simulator: a simulator's name, or ``file.py:Class``.
        options: of the simulator.
        measurements: B, simulated for the purpose.
        draws: n of each posterior.
        settings: of the engine.
        version: of the simulator that it was made with, or ``None`` where that is of no consequence.
    """

    simulator: str
    options: Mapping[str, Any] = field(default_factory=dict)
    measurements: int = 200
    draws: int = 1000
    settings: Settings = field(default_factory=Settings)
    version: int | None = None

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """The recipe of the reference whose ``record.json`` lies at ``path``.

        Raises:
            ValueError: where the file is no record, or one of another layout.
            OSError: where it cannot be read.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not JSON ({error}); expected the record.json of a reference") from error
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            found = record.get("schema") if isinstance(record, dict) else type(record).__name__
            raise ValueError(
                f"{path} has the layout {found}; expected {SCHEMA}, that of the record.json that `posterior-bench "
                "reference` writes: give its options by hand, and make it anew"
            )
        try:
            return cls(
                str(record["simulator"]),
                dict(record["options"]),
                int(record["measurements"]),
                int(record["draws"]),
                settings_of(record["settings"]),
                int(record["simulator_version"]),
            )
        except KeyError as error:
            raise ValueError(f"{path} lacks {error}; expected the whole record.json of a reference") from error
        except TypeError as error:
            raise ValueError(f"{path}: {error}; expected the record.json of a reference") from error

    def make(self, device: str | torch.device = "cpu", progress: Progress | None = None) -> Reference:
        """The reference; ``make_reference`` and the registry say what is raised besides.

        Raises:
            ValueError: where the simulator has another version now.
        """
        simulator = registry.build("simulators", self.simulator, dict(self.options))
        if self.version is not None and simulator.spec.version != self.version:
            raise ValueError(
                f"{self.simulator!r} has version {simulator.spec.version} and its record tells of version "
                f"{self.version}; expected the same: make a new reference"
            )
        return make_reference(simulator, self.measurements, self.draws, self.settings, device, progress)


def settings_of(values: Mapping[str, Any]) -> Settings:
    """The engine's settings from names and values.

    Raises:
        ValueError: where a name is not one of them, or a value is not possible.
        TypeError: where a value is of another type.
    """
    hints = get_type_hints(Settings)
    for name, value in values.items():
        if name not in hints:
            raise ValueError(registry.unknown("setting of a recipe", name, list(hints)))
        kinds = _kinds(hints[name])
        if isinstance(value, bool) or not isinstance(value, kinds):
            expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise TypeError(f"{name} is {value!r}, of type {type(value).__name__}; expected {expected}")
    return Settings(**values)


def _kinds(hint: Any) -> tuple[type, ...]:
    """The types that a hint allows; a whole number is a float too."""
    kinds = {item if isinstance(item, type) else type(item): None for item in get_args(hint) or (hint,)}
    return (int, *kinds) if float in kinds else tuple(kinds)
