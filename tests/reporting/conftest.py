from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from gaussian_results import make_results

from posterior_bench.reporting import TaskSummary, summarise, write_report
from posterior_bench.running.results import Results


@pytest.fixture(scope="session")
def results() -> Results:
    return make_results()


@pytest.fixture(scope="session")
def build() -> Callable[..., Results]:
    return make_results


@pytest.fixture(scope="session")
def folder(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of ``results``, written once."""
    return write_report(results, tmp_path_factory.mktemp("report")).parent


@pytest.fixture(scope="session")
def summaries(results: Results) -> tuple[TaskSummary, ...]:
    return summarise(results)
