"""A method on a task over its fits: its numbers with what places them, and its role."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from .. import registry
from ..evaluation import Ranked
from ..records import MethodSpec, Need
from ..running.results import JobResult, Results
from .fits import by_metric, measurements_of

INFORMED = 0.05
"""A parameter counts as informed by the data where the judge's CRPS skill for it is above this: its posterior is then
on average at least 5 % sharper than its prior."""

Role = Literal["", "reference", "anchor", "flawed"]
"""What a method stands for in a report: nothing but itself; exact draws; what knows nothing; exact draws that were made
wrong on purpose."""


@dataclass(frozen=True)
class Number:
    """A score of a method: its mean over the fits that succeeded, and what places it.

    Args:
        value: mean over fits.
        fits: how many.
        spread: standard deviation over fits, ``None`` for one.
        std_error: of the test set, for one fit.
        null_low, null_high: ends of one fit's null band, averaged over fits; ``None`` where there is none.
    """

    value: float
    fits: int = 1
    spread: float | None = None
    std_error: float | None = None
    null_low: float | None = None
    null_high: float | None = None

    @property
    def has_null(self) -> bool:
        """Whether a null band is known."""
        return self.null_low is not None and self.null_high is not None


@dataclass(frozen=True, eq=False)
class Contender:
    """One method at one budget on one task, over its fits.

    Args:
        key: id of the method in this report.
        label: name to print.
        budget: simulations it learned from; 0 for an anchor.
        role: ``"reference"`` for exact draws, ``"anchor"`` for one that spends nothing and knows nothing, ``"flawed"``
            for a control, exact draws with a defect; else empty.
        jobs: its jobs, the failed and skipped ones too.
        scores: metric -> number.
        position: its place in the suite, by which figures that show several groups of methods are ordered.
        ranked: its place and verdict, where at least one fit has scores to rank.
    """

    key: str
    label: str
    budget: int
    role: Role
    jobs: tuple[JobResult, ...]
    scores: Mapping[str, Number] = field(default_factory=dict)
    ranked: Ranked | None = None
    position: int = 0

    @property
    def family(self) -> str:
        """Methods whose ids begin with the same word are variants of one idea, and are shown together."""
        return self.jobs[0].rows[0].method.partition("_")[0]

    @property
    def done(self) -> tuple[JobResult, ...]:
        """The jobs that succeeded."""
        return tuple(job for job in self.jobs if job.status == "ok")

    @property
    def measurements(self) -> int | None:
        """Test measurements on which it was scored; ``None`` where no artefact tells."""
        return measurements_of(self.done)

    @property
    def trouble(self) -> str:
        """What is missing, in words: ``1 of 2 failed``, ``skipped``; empty where all went well."""
        parts = []
        for status in ("failed", "skipped"):
            count = sum(job.status == status for job in self.jobs)
            if count:
                parts.append(status if count == len(self.jobs) == 1 else f"{count} of {len(self.jobs)} {status}")
        return ", ".join(parts)

    def score(self, metric: str) -> Number | None:
        """A number, or ``None`` where no fit has it."""
        return self.scores.get(metric)

    def cost(self, name: str) -> float | None:
        """Mean over the fits of a field of ``Cost``."""
        values = [getattr(job.cost, name) for job in self.done if job.cost is not None]
        known = [float(value) for value in values if value is not None]
        return statistics.fmean(known) if known else None


def method_key(results: Results, job: JobResult) -> str:
    """The id under which ``results.labels`` names the method of a job.

    Raises:
        ValueError: where the labels do not hold it.
    """
    if job.method not in results.labels:
        raise ValueError(f"job {job.job} belongs to {job.method!r}, and the labels name {', '.join(results.labels)}")
    return job.method


def anchor_roles(results: Results) -> dict[str, Role]:
    """The role of each method. An anchor does not train: its outcome depends on no simulations.

    The plug-in itself says whether it draws from the exact posterior. The one that does and is called ``reference`` is
    the reference; all others, and one with options, are controls. Where a plug-in is not installed, an anchor with
    options is taken for a control, and one with skill for the reference.
    """
    roles: dict[str, Role] = {}
    for key in results.labels:
        jobs = [job for job in results.jobs if method_key(results, job) == key]
        if not jobs or any(job.rows[0].budget or job.rows[0].calls for job in jobs):
            roles[key] = ""
            continue
        row = jobs[0].rows[0]
        try:
            spec: MethodSpec = registry.load("methods", row.method).spec
            exact, trains = Need.REFERENCE in spec.needs, spec.trains
            plain = row.method == "reference" and not row.options
        except registry.PluginError:
            skill = numbers([job for job in jobs if job.status == "ok"]).get("energy_skill")
            plain = not row.options
            exact, trains = not plain or (skill is not None and skill.value > INFORMED), False
        roles[key] = "" if trains else "anchor" if not exact else "reference" if plain else "flawed"
    return roles


def root_mean_square(contender: Contender, metric: str, parameters: Sequence[str]) -> Number | None:
    """Root mean square of ``metric/<p>`` over some parameters; ``None`` where a fit lacks one of them.

    The ends of the null band are root mean squares as well: the band for scores that move together, and for all others
    wider than need be.
    """
    found: list[tuple[float, float | None, float | None]] = []
    for rows in map(by_metric, contender.done):
        chosen = [rows[name] for p in parameters if (name := f"{metric}/{p}") in rows]
        value = _quadratic([row.value for row in chosen])
        if value is None or len(chosen) < len(parameters):
            return None
        low, high = _quadratic([row.null_low for row in chosen]), _quadratic([row.null_high for row in chosen])
        found.append((value, low, high))
    if not found:
        return None
    values = [value for value, _, _ in found]
    return Number(
        value=statistics.fmean(values),
        fits=len(values),
        spread=statistics.stdev(values) if len(values) > 1 else None,
        null_low=_mean_of([low for _, low, _ in found]),
        null_high=_mean_of([high for _, _, high in found]),
    )


def worst(contender: Contender, metric: str, parameters: Sequence[str]) -> tuple[str, Number] | None:
    """The parameter whose ``metric/<p>`` is the largest, with its number."""
    known = [(name, contender.score(f"{metric}/{name}")) for name in parameters]
    ranked = [(name, number) for name, number in known if number is not None]
    return max(ranked, key=lambda pair: pair[1].value) if ranked else None


def numbers(jobs: Sequence[JobResult]) -> dict[str, Number]:
    """Each metric's number over some fits, all of which succeeded."""
    fits = [by_metric(job) for job in jobs]
    found = {}
    for metric in dict.fromkeys(metric for fit in fits for metric in fit):
        rows = [fit[metric] for fit in fits if metric in fit and fit[metric].value is not None]
        values = [row.value for row in rows if row.value is not None]
        if values:
            found[metric] = Number(
                value=statistics.fmean(values),
                fits=len(values),
                spread=statistics.stdev(values) if len(values) > 1 else None,
                std_error=_mean_of([row.std_error for row in rows]),
                null_low=_mean_of([row.null_low for row in rows]),
                null_high=_mean_of([row.null_high for row in rows]),
            )
    return found


def _quadratic(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.sqrt(statistics.fmean(v**2 for v in known)) if len(known) == len(values) and known else None


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) and known else None


def short_labels(results: Results) -> Results:
    """The results with labels that fit a figure: ``INN (inn.4)`` becomes ``INN .4``.

    That is done where the name of an entry is the id of its method, a dot and more: the label says the rest already.
    """
    methods = {method_key(results, job): job.rows[0].method for job in results.jobs}
    labels = {}
    for key, label in results.labels.items():
        method, tail = methods.get(key, key), f" ({key})"
        numbered = key.startswith(f"{method}.") and label.endswith(tail)
        labels[key] = f"{label.removesuffix(tail)} {key.removeprefix(method)}" if numbered else label
    return replace(results, labels=labels)


def options_text(options: Mapping[str, object]) -> str:
    """Options as they are printed: JSON, or ``defaults``."""
    return json.dumps(dict(options), sort_keys=True, default=str) if options else "defaults"
