from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from posterior_bench.running.suite import Suite

TOYS = Path(__file__).with_name("toys.py")


@pytest.fixture
def make_suite() -> Callable[..., Suite]:
    """Build a suite of toys: ``make_suite(["Gaussian"], ["Regression"], measurements=50)``.

    ``of_task`` and ``of_method`` are further keys of every task and every method.
    """

    def make(
        simulators: list[str],
        methods: list[str],
        of_task: dict[str, object] | None = None,
        of_method: dict[str, object] | None = None,
        **settings: object,
    ) -> Suite:
        small = {"name": "toys", "measurements": 60, "draws": 40, "budgets": [300], "reference_measurements": 20}
        small["reference_draws"] = 40
        tasks = [{"simulator": f"{TOYS}:{name}", **(of_task or {})} for name in simulators]
        places = [f"{TOYS}:{name}" if name[0].isupper() else name for name in methods]
        entries = [{"method": place, **(of_method or {})} for place in places]
        return Suite.model_validate(small | settings | {"tasks": tasks, "methods": entries})

    return make
