"""The fits behind a method's numbers: their rows, and their scores of each measurement side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..records import Row
from ..running.results import JobResult


def by_metric(job: JobResult) -> dict[str, Row]:
    """The rows over the whole test set, by metric."""
    return {row.metric: row for row in job.rows if row.metric is not None and row.observation is None}


def score_matrix(jobs: Sequence[JobResult], metric: str = "energy_skill") -> Tensor | None:
    """The scores (R, T) of all fits; ``None`` where one lacks them, numbers differ or are not finite, or T < 2."""
    found = _scores(jobs, metric)
    if len(found) < len(jobs) or len({len(scores) for scores in found}) != 1 or len(found[0]) < 2:
        return None
    matrix = torch.stack(found)
    return matrix if bool(matrix.isfinite().all()) else None


def measurements_of(jobs: Sequence[JobResult]) -> int | None:
    """T, the test measurements on which the fits were scored (the fewest, where they differ); ``None`` if unknown."""
    told = [job.measurements for job in jobs if job.measurements is not None]
    return min(told or [len(scores) for scores in _scores(jobs, "energy_skill")], default=None)


def _scores(jobs: Sequence[JobResult], metric: str) -> list[Tensor]:
    parts = (job.artefact.per_measurement.get(metric) for job in jobs if job.artefact is not None)
    return [part for part in parts if part is not None]
