from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from posterior_bench.running.suite import Suite

TOYS = Path(__file__).with_name("toys.py")


@pytest.fixture
def make_suite() -> Callable[..., Suite]:
    """Build a suite of toys: ``make_suite(["Gaussian"], ["Regression"], measurements=50)``."""

    def make(simulators: list[str], methods: list[str], **settings: object) -> Suite:
        small = {"name": "toys", "measurements": 60, "draws": 40, "budgets": [300], "reference_measurements": 20}
        small["reference_draws"] = 40
        tasks = [{"simulator": f"{TOYS}:{name}"} for name in simulators]
        entries = [{"method": f"{TOYS}:{name}" if name[0].isupper() else name} for name in methods]
        return Suite.model_validate(small | settings | {"tasks": tasks, "methods": entries})

    return make
