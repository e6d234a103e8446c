"""Signals that a posterior makes: the one behind the measurement, its future, and what other parameters would give.

Mean absolute errors mean |s - s*|, in the measurement's unit, of reconstructions against the measurement, of forecasts
at 1, 4 and 12 times the seen horizon, and of interventions against the true process with other parameters and its own
nuisances. Reconstruction, by one draw, and intervention are those of Takeishi & Kalousis 2021 (arXiv 2102.13156) and of
the notebook released with it; forecasts are told with their bands.

Given the measurement, the signal and the draws of an exact posterior are exchangeable. A pseudo-truth is therefore one
of the draws, scored against the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..contracts import HasSignals, Metric
from ..records import Draws, Score, Truth
from .arithmetic import chunks
from .inputs import check
from .nulls import NORMAL_95, mean_band, standard_error

DRAWS = 20
"""Draws of a signal. Of 20 exchangeable values one lies outside of the range of the 19 others with probability 2 / 20:
that range is the central 90 % interval, with no rounding."""

HORIZONS = (1, 4, 12)
"""How far a forecast goes beyond the M times seen, in multiples of M: it is scored at M, ..., (1 + h) M - 1."""

FORECASTS, INTERVENTIONS = 200, 30
"""Measurements at the front of the test set that are continued, and intervened in (as many as in the notebook)."""

FACTORS = (0.2, 0.55, 0.9, 1.25, 1.6, 1.95, 2.3, 2.65, 3.0)
"""Factors on the true parameters, those of the notebook."""

PICTURED, PICTURED_HORIZON = 4, 4
"""Measurements whose forecasts are kept for a figure, and how far."""

LARGEST = 2**23
"""Numbers that are asked of a posterior in one call: 32 MB."""


@dataclass(frozen=True, eq=False)
class _Against:
    """Draws of R signals against the true ones, averaged over all but the last axis of a signal, time.

    Where a draw is not finite, its numbers are NaN, and so is what is made of them.
    """

    error: Tensor  # (R, L), of the mean of the draws
    null_error: Tensor  # (n, R, L), of the mean of the others, were this draw the truth
    held: Tensor  # (R, L), share of values in the range of all draws but the last
    null_held: Tensor  # (n, R, L), in the range of the others
    lost: Tensor  # (n, R, L), whether the draw is not finite


def against(found: Tensor, star: Tensor) -> _Against:
    """Compare draws (n, R, ..., L), n >= 3, with true signals (R, ..., L)."""
    finite = torch.isfinite(found)
    found = torch.where(finite, found, torch.nan)
    n, mean = len(found), found.mean(0, dtype=torch.float64)
    low, high = found[:-1].amin(0), found[:-1].amax(0)
    # a draw is in the range of the others unless it is the one smallest or largest: the second ones tell
    first, last = found[0], found[0]
    second, but_one = torch.full_like(first, torch.inf), torch.full_like(first, -torch.inf)
    for draw in found[1:]:
        second, first = torch.minimum(second, torch.maximum(first, draw)), torch.minimum(first, draw)
        but_one, last = torch.maximum(but_one, torch.minimum(last, draw)), torch.maximum(last, draw)
    return _Against(
        over_time(mean - star, absolute=True),
        torch.stack([over_time((mean - draw) * (n / (n - 1)), absolute=True) for draw in found]),
        over_time((star >= low) & (star <= high)),
        torch.stack([over_time((draw >= second) & (draw <= but_one)) for draw in found]),
        torch.stack([over_time(~known) > 0 for known in finite]),
    )


def over_time(values: Tensor, absolute: bool = False) -> Tensor:
    """Means (R, L) of values (R, ..., L), or of their absolutes, over all axes between the first and the last."""
    values = values.abs() if absolute else values
    return values.reshape(len(values), -1, values.shape[-1]).mean(1, dtype=torch.float64)


class Signals(Metric):
    """Errors of reconstructed, continued and intervened signals, in the measurement's unit.

    - ``reconstruction_error``: of one draw against the measurement, as published. An exact draw and the signal itself
      are exchangeable, so that the null value is the signal's own error, the noise; the band is +-1.96 standard errors
      of the difference, and a little wide. Below it a reconstruction follows the noise.
    - ``reconstruction_mean_error``: of the mean of 20 draws against the measurement. No band.
    - ``forecast_error/<h>x``: of the mean of 20 draws against the signal without noise, at times M to (1 + h) M - 1.
    - ``forecast_coverage/<h>x``: fraction of those values in the central 90 % interval of the draws.
    - ``forecast_diverged/<h>x``: fraction of draws that are not finite somewhere up to there. Above 0, there is no
      ``forecast_error``, and such a measurement counts as not covered.
    - ``intervention_error``: of the mean of 20 draws against the process with the true parameters times 0.2 to 3, at
      the seen times; mean over nine factors. ``intervention_diverged``: as for forecasts.

    M is the number of times seen, the last axis of a measurement. Bands of errors of means, and of coverage, are what
    the draws claim: an over-confident posterior has errors above, and coverage below. Forecasts are of the first 200
    measurements, interventions of the first 30. Nothing where posterior or process say nothing of signals.
    """

    name = "reconstruction_error"
    version = 1

    def score(self, draws: Draws, truth: Truth) -> Iterator[Score]:
        """The scores, with ``per_measurement`` (R,), R as said above.

        Artefacts of ``forecast_coverage/4x``, for up to 4 measurements and one ``place`` () of a signal's other axes:
        ``truth``, ``low``, ``median``, ``high`` (4, 5 M), the latter the interval of 90 %. Of ``intervention_error``:
        ``factors``, ``errors``, ``null_low``, ``null_high`` (9,).

        Raises:
            ValueError: where signals of the process, or reconstructions, are not finite, or a shape is wrong.
        """
        check(draws, truth)
        if draws.signals is None or truth.signal is None:
            return
        seen = truth.y.shape[-1]
        signal = true_signals(truth, 1.0, (1 + max(HORIZONS)) * seen)
        with torch.no_grad():
            yield from _reconstructions(draws.signals, truth.y, signal[..., :seen])
            yield from _forecasts(draws.signals, truth.y[:FORECASTS], signal[:FORECASTS])
            yield from _interventions(draws.signals, truth)


def true_signals(truth: Truth, factor: float, steps: int) -> Tensor:
    """Signals (T, *y_shape with ``steps`` times last) of the process at ``factor`` times the true parameters."""
    if truth.signal is None:
        raise ValueError("the truth comes without signals; expected Truth(signal=...)")
    found = truth.signal(factor * truth.theta, steps)
    expected = (*truth.y.shape[:-1], steps)
    if tuple(found.shape) != expected:
        raise ValueError(f"the process gave signals of shape {tuple(found.shape)}; expected {expected}")
    broken = ~torch.isfinite(found.flatten(1)).all(1)
    if broken.any():
        raise ValueError(
            f"{int(broken.sum())} of {len(found)} signals of the process are not finite over {steps} times at "
            f"{factor:g} times the true parameters: nothing can be compared with them. Likely cure: more steps of its "
            "solver, or a process whose solution exists there"
        )
    return found


def _asked(found: Tensor, expected: tuple[int, ...], name: str) -> Tensor:
    if tuple(found.shape) != expected:
        raise ValueError(
            f"{name}() returned signals of shape {tuple(found.shape)}; expected {expected}: draws lead, then "
            "measurements, and time comes last"
        )
    return found


def _reconstructions(posterior: HasSignals, y: Tensor, signal: Tensor) -> Iterator[Score]:
    one, mean = (torch.empty(len(y), dtype=torch.float64, device=y.device) for _ in range(2))
    for part in chunks(len(y), DRAWS * y[0].numel(), LARGEST):
        found = _asked(posterior.reconstruct(y[part], DRAWS), (DRAWS, *y[part].shape), "reconstruct")
        if not torch.isfinite(found).all():
            raise ValueError("reconstructions hold NaN or infinity; a posterior must return finite ones of what it saw")
        one[part] = over_time(found[0] - y[part], absolute=True).mean(1)
        mean[part] = over_time(found.mean(0) - y[part], absolute=True).mean(1)
    floor = over_time(signal - y, absolute=True).mean(1)
    low, high, error = None, None, standard_error(floor)
    if error is not None:
        # given y the two errors are independent, with no more than the variance that the floor has over all y
        half = NORMAL_95 * 2**0.5 * error
        low, high = float(floor.mean()) - half, float(floor.mean()) + half
    yield Score("reconstruction_error", float(one.mean()), standard_error(one), low, high, per_measurement=one)
    yield Score("reconstruction_mean_error", float(mean.mean()), standard_error(mean), per_measurement=mean)


def _forecasts(posterior: HasSignals, y: Tensor, star: Tensor) -> Iterator[Score]:
    seen, steps = y.shape[-1], star.shape[-1]
    parts: list[_Against] = []
    pictures: list[Tensor] = []
    for part in chunks(len(y), DRAWS * star[0].numel(), LARGEST):
        found = posterior.extrapolate(y[part], DRAWS, steps)
        found = _asked(found, (DRAWS, *star[part].shape), "extrapolate")
        parts.append(against(found[..., seen:], star[part][..., seen:]))
        pictures.append(found[:, : PICTURED - sum(p.shape[1] for p in pictures), ..., : (1 + PICTURED_HORIZON) * seen])
    error, held = (torch.cat([getattr(p, name) for p in parts]) for name in ("error", "held"))
    null_error, null_held, lost = (
        torch.cat([getattr(p, name) for p in parts], dim=1) for name in ("null_error", "null_held", "lost")
    )
    for horizon in HORIZONS:
        window = slice(0, horizon * seen)
        gone = lost[..., window].any(-1).double().mean(0)
        yield Score(f"forecast_diverged/{horizon}x", float(gone.mean()), standard_error(gone), 0.0, 0.0)
        if not gone.any():
            yield _score(f"forecast_error/{horizon}x", error[:, window].mean(1), null_error[..., window].mean(-1))
        own, null = held[:, window].mean(1), null_held[..., window].mean(-1)
        score = _score(f"forecast_coverage/{horizon}x", own, None if gone.any() else null)
        if horizon == PICTURED_HORIZON:
            score = replace(score, artefacts=_picture(torch.cat(pictures, dim=1), star))
        yield score


def _score(metric: str, own: Tensor, null: Tensor | None, spread: Tensor | None = None) -> Score:
    """The mean of (R,) with the band of pseudo-truths (n, R), whose variance is ``spread`` where that is given."""
    low, high = None, None
    if null is not None:
        low, high = mean_band(null.mean(0), null.var(0) if spread is None else spread, len(null))
    return Score(metric, float(own.mean()), standard_error(own), low, high, per_measurement=own)


def _picture(found: Tensor, star: Tensor) -> dict[str, Tensor]:
    """What a figure shows of draws (n, P, ..., L): one place of a signal, the middle one of all but its times."""
    n, shown, steps = len(found), found.shape[1], found.shape[-1]
    found, star = found.reshape(n, shown, -1, steps), star[:shown, ..., :steps].reshape(shown, -1, steps)
    place = star.shape[1] // 2
    found, star = found[:, :, place], star[:, place]
    kept = found[:-1]
    return {
        "truth": star.clone(),
        "low": kept.amin(0),
        "median": found.quantile(0.5, dim=0),
        "high": kept.amax(0),
        "place": torch.tensor(place),
    }


def _interventions(posterior: HasSignals, truth: Truth) -> Iterator[Score]:
    y, seen = truth.y[:INTERVENTIONS], truth.y.shape[-1]
    each = []
    for factor in FACTORS:
        star = true_signals(truth, factor, seen)[:INTERVENTIONS]
        found = posterior.intervene(y, DRAWS, factor * truth.theta[:INTERVENTIONS])
        each.append(against(_asked(found, (DRAWS, *y.shape), "intervene"), star))
    gone = torch.stack([one.lost.any(-1).double().mean(0) for one in each]).mean(0)
    yield Score("intervention_diverged", float(gone.mean()), standard_error(gone), 0.0, 0.0)
    if gone.any():
        return
    errors = torch.stack([one.error.mean(1) for one in each])  # (factors, R)
    null = torch.stack([one.null_error.mean(-1) for one in each])  # (factors, n, R)
    bands = torch.tensor([mean_band(one.mean(0), one.var(0), len(one)) for one in null])
    # one measurement's errors at several factors go together: the mean's sd is at most the mean of their sds
    score = _score("intervention_error", errors.mean(0), null.mean(0), null.std(1).mean(0).square())
    shown = {"factors": torch.tensor(FACTORS), "errors": errors.mean(1)}
    yield replace(score, artefacts=shown | {"null_low": bands[:, 0], "null_high": bands[:, 1]})
