from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from posterior_bench.running.suite import Suite, load_suite

TOYS = Path(__file__).with_name("toys.py")

SMALL: dict[str, object] = {
    "name": "toys",
    "measurements": 60,
    "draws": 40,
    "budgets": [300],
    "reference_measurements": 20,
    "reference_draws": 40,
}


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
        tasks = [{"simulator": f"{TOYS}:{name}", **(of_task or {})} for name in simulators]
        places = [f"{TOYS}:{name}" if name[0].isupper() else name for name in methods]
        entries = [{"method": place, **(of_method or {})} for place in places]
        return Suite.model_validate(SMALL | settings | {"tasks": tasks, "methods": entries})

    return make


@pytest.fixture
def suite_of(tmp_path: Path) -> Callable[..., Suite]:
    """Load a suite from the TOML text of its tasks and methods, in which ``toys:Name`` is one of the toys."""

    def make(text: str, **settings: object) -> Suite:
        head = "".join(f"{key} = {json.dumps(value)}\n" for key, value in (SMALL | settings).items())
        path = tmp_path / "suite.toml"
        path.write_text(head + text.replace("toys:", f"{TOYS}:"), encoding="utf-8")
        return load_suite(str(path))

    return make
