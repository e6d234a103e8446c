"""Jobs that differ by their measurement alone, as one: mean_j s_j over the O measurements of a cell, one fit for each.

A mean is given only where every measurement has its number: what failed or is not done is said, and never averaged
away by those that are there.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..records import Row
from .job import Job
from .results import KEPT_MEASUREMENTS, Artefact, Cost, JobResult


def joined(jobs: Sequence[Job], results: Sequence[JobResult | None], command: str) -> JobResult:
    """One outcome of a cell from those of its measurements.

    Args:
        jobs: the cell's, one a measurement, in their order.
        results: theirs, ``None`` where one is not done yet.
        command: does the whole cell.
    """
    done = [result for result in results if result is not None]
    first = jobs[0]
    base = dataclasses.replace(
        done[0].rows[0],
        job=first.group,
        test_set=f"{first.test_set}-{len(jobs)}",
        observation=None,
        metric=None,
        metric_version=None,
        value=None,
        std_error=None,
        null_low=None,
        null_high=None,
        calls=sum(result.rows[0].calls for result in done),
        invalid=sum(result.rows[0].invalid for result in done),
    )
    status, reason = _outcome(results)
    rows = [dataclasses.replace(base, status=status, reason=reason)]
    artefacts: list[Artefact] = []
    costs: list[Cost] = []
    if status == "ok":
        scored = [{row.metric: row for row in result.rows if row.metric is not None} for result in done]
        limits = {first.dense_measurements, first.reference_measurements}
        metrics = dict.fromkeys(metric for found in scored for metric in found)
        rows = [_mean([found.get(metric) for found in scored], done, base, limits) for metric in metrics] or rows
        artefacts = [result.artefact for result in done if result.artefact is not None]
        costs = [result.cost for result in done if result.cost is not None]
    return JobResult(
        first.group,
        tuple(rows),
        command,
        _artefact(artefacts) if artefacts else None,
        _cost(costs) if costs else None,
        first.label,
        measurements=len(jobs),
        one_fit_each=True,
    )


def _outcome(results: Sequence[JobResult | None]) -> tuple[Literal["ok", "skipped", "failed"], str]:
    """Status and reason of the whole: failed where a measurement failed, skipped where one is skipped or missing."""
    total = len(results)
    missing = sum(result is None for result in results)
    later = f"; {missing} are not done yet" if missing else ""
    statuses: tuple[Literal["failed", "skipped"], ...] = ("failed", "skipped")
    for status in statuses:
        bad = [(j, result.rows[0].reason) for j, result in enumerate(results) if result and result.status == status]
        if bad:
            place, reason = bad[0]
            return status, f"{len(bad)} of {total} measurements {status}, number {place} first: {reason}{later}"
    if missing:
        return "skipped", f"{missing} of {total} measurements are not done yet: the same run goes on with them"
    return "ok", ""


def _mean(rows: Sequence[Row | None], done: Sequence[JobResult], base: Row, limits: set[int]) -> Row:
    """The mean of a score over measurements, or its root mean square where it is a root mean square itself.

    Measurements are independent, so that half widths of null bands add as squares.

    Args:
        rows: one a measurement, ``None`` where it has no such score.
        done: the outcomes that they are of.
        base: the identity of the cell.
        limits: numbers of first measurements for which there is something to compare with; a score may stop there.
    """
    total, known = len(rows), [row is not None and row.value is not None for row in rows]
    kept = [row for row in rows if row is not None and row.value is not None]
    count = len(kept)
    some = next(row for row in rows if row is not None)
    row = dataclasses.replace(base, metric=some.metric, metric_version=some.metric_version, reason="one fit each")
    if count < total:
        if count not in limits or not all(known[:count]):
            return dataclasses.replace(row, reason=f"{count} of {total} measurements have this score: no mean is given")
        row = dataclasses.replace(row, reason=f"one fit each, the first {count} of {total} measurements")
    values = [row.value for row in kept if row.value is not None]
    error = statistics.stdev(values) / math.sqrt(count) if count > 1 else None
    if any(_is_root(result, found) for result, found in zip(done, rows, strict=True)):
        squares = [value**2 for value in values]
        value = math.sqrt(statistics.fmean(squares))
        if error is not None:
            error = statistics.stdev(squares) / math.sqrt(count) / (2 * value) if value > 0 else None
        return dataclasses.replace(row, value=value, std_error=error)
    low, high = None, None
    ends = [(row.null_low, row.null_high) for row in kept if row.null_low is not None and row.null_high is not None]
    if len(ends) == count:
        centre = statistics.fmean((a + b) / 2 for a, b in ends)
        half = math.sqrt(sum(((b - a) / 2) ** 2 for a, b in ends)) / count
        low, high = centre - half, centre + half
    value = statistics.fmean(values)
    return dataclasses.replace(row, value=value, std_error=error, null_low=low, null_high=high)


def _is_root(result: JobResult, row: Row | None) -> bool:
    """Whether a score of one measurement is a root mean square: see ``Score.per_measurement``."""
    each = None if row is None or result.artefact is None else result.artefact.per_measurement.get(str(row.metric))
    if row is None or row.value is None or each is None or len(each) != 1:
        return False
    square, value = float(each[0]), row.value
    return math.isclose(square, value**2, rel_tol=1e-4) and not math.isclose(square, value, rel_tol=1e-4)


def _artefact(parts: Sequence[Artefact]) -> Artefact:
    """Draws of the first measurements side by side, scores of all; the training is that of the first."""
    first = parts[0]
    shared = set.intersection(*(set(part.per_measurement) for part in parts))

    def side_by_side(tensors: Sequence[Tensor], dim: int) -> Tensor:
        return torch.cat(list(tensors[:KEPT_MEASUREMENTS]), dim)

    return Artefact(
        draws=side_by_side([part.draws for part in parts], 1),
        truth=side_by_side([part.truth for part in parts], 0),
        y=side_by_side([part.y for part in parts], 0),
        prior=first.prior,
        per_measurement={
            name: torch.cat([part.per_measurement[name] for part in parts])
            for name in first.per_measurement
            if name in shared
        },
        history=first.history,
    )


def _cost(parts: Sequence[Cost]) -> Cost:
    """What one of the fits took on average; the memory is the most that one took."""

    def known(name: str) -> list[float]:
        return [float(value) for part in parts if (value := getattr(part, name)) is not None]

    def mean(name: str) -> float | None:
        return statistics.fmean(values) if (values := known(name)) else None

    return dataclasses.replace(
        parts[0],
        fit_seconds=mean("fit_seconds"),
        draws_per_second=mean("draws_per_second"),
        score_seconds=mean("score_seconds"),
        peak_memory_mb=max(known("peak_memory_mb"), default=None),
    )
