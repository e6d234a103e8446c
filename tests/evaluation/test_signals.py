"""Scores of signals against closed forms: a level that is normal given the measurement, and offsets at known times."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from posterior_bench import Draws, HasSignals, Truth
from posterior_bench.evaluation import Signals, evaluate, signals

SEEN = 6
MEAN_ABSOLUTE = math.sqrt(2 / math.pi)
NOISE = 0.3


@dataclass(frozen=True)
class Levels(HasSignals):
    """s(t) = theta + y(0) / 2 + e at all times, e ~ N(0, 1): draws of e, and of theta ~ N(0, 1) where it is not set."""

    scale: float = 1.0

    def _levels(self, y: Tensor, n: int, spread: float, steps: int) -> Tensor:
        level = y.flatten(1)[:, 0] / 2 + self.scale * spread * torch.randn(n, len(y))
        return level.view(n, len(y), *[1] * (y.ndim - 1)).expand(n, *y.shape[:-1], steps)

    def reconstruct(self, y: Tensor, n: int) -> Tensor:
        return self._levels(y, n, math.sqrt(2), y.shape[-1])

    def extrapolate(self, y: Tensor, n: int, horizon: int) -> Tensor:
        return self._levels(y, n, math.sqrt(2), horizon)

    def intervene(self, y: Tensor, n: int, theta: Tensor) -> Tensor:
        return self._levels(y, n, 1.0, y.shape[-1]) + theta.sum(1).view(-1, *[1] * (y.ndim - 1))


@dataclass(frozen=True)
class Offset(HasSignals):
    """The true signal plus ``shift`` (steps,), the same for all draws; ``broken`` (draw, measurement, time) is NaN."""

    truth: Truth
    shift: Tensor
    broken: tuple[int, int, int] | None = None

    def reconstruct(self, y: Tensor, n: int) -> Tensor:
        return self.extrapolate(y, n, y.shape[-1])

    def extrapolate(self, y: Tensor, n: int, horizon: int) -> Tensor:
        rows = [int((self.truth.y == one).flatten(1).all(1).nonzero()) for one in y]
        found = (self.truth.signal(self.truth.theta, horizon)[rows] + self.shift[:horizon]).repeat(n, *[1] * y.ndim)
        if self.broken is not None and self.broken[1] in rows:
            draw, measurement, time = self.broken
            found[draw, rows.index(measurement), ..., time:] = torch.nan
        return found

    def intervene(self, y: Tensor, n: int, theta: Tensor) -> Tensor:
        return self.extrapolate(y, n, y.shape[-1])


def make_truth(base: Truth, places: tuple[int, ...] = (), unknown: float = 1.0) -> Truth:
    """Measurements of the levels above; what is seen of them is y(0) / 2 and, as noise about it, all of y."""
    count = len(base.theta)
    level = unknown * torch.randn(count) + base.theta[:, 0]
    first = 2 * torch.randn(count)
    shape = (count, *[1] * (len(places) + 1))

    def signal(theta: Tensor, steps: int) -> Tensor:
        whole = (first / 2 + level - base.theta[:, 0] + theta[:, 0]).view(shape)
        return whole.expand(count, *places, steps).clone()

    y = signal(base.theta, SEEN) + NOISE * torch.randn(count, *places, SEEN)
    y[(slice(None), *[0] * (len(places) + 1))] = first
    return replace(base, y=y, signal=signal)


def scores_of(posterior: HasSignals, truth: Truth, by_name):
    draws = Draws(torch.randn(5, *truth.theta.shape), signals=posterior)
    return by_name(evaluate(draws, truth, [Signals()]))


@pytest.mark.parametrize("places", [(), (3,)])
def test_exact_draws_score_as_a_normal_does_and_inside_the_bands(normal_truth, by_name, places):
    truth = make_truth(normal_truth(400), places)
    scores = scores_of(Levels(), truth, by_name)
    of_mean = MEAN_ABSOLUTE * math.sqrt(1 + 1 / 20)
    for horizon in (1, 4, 12):
        error, coverage = scores[f"forecast_error/{horizon}x"], scores[f"forecast_coverage/{horizon}x"]
        assert error.value == pytest.approx(math.sqrt(2) * of_mean, abs=4 * error.std_error)
        assert error.per_measurement.shape == (200,)
        assert coverage.value == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / 200))
        assert (coverage.null_low + coverage.null_high) / 2 == pytest.approx(0.9)
        # all values of one level are held or none: a share of 200 trials
        half = (coverage.null_high - coverage.null_low) / 2
        assert half == pytest.approx(1.96 * math.sqrt(0.09 / 200), rel=0.1)
        assert scores[f"forecast_diverged/{horizon}x"].value == 0
    intervention = scores["intervention_error"]
    assert intervention.per_measurement.shape == (30,)
    assert intervention.value == pytest.approx(of_mean, abs=4 * intervention.std_error)
    half = (intervention.null_high - intervention.null_low) / 2
    spread = math.sqrt((1 - 2 / math.pi) * (1 + 1 / 20) / 30 * (1 + 1 / 20))
    assert half == pytest.approx(1.96 * spread, rel=0.15), "errors at several factors are not independent"
    centre = (intervention.null_high + intervention.null_low) / 2
    assert centre == pytest.approx(MEAN_ABSOLUTE * math.sqrt(1 + 1 / 19), rel=0.035)
    one = scores["reconstruction_error"]
    floor = (truth.signal(truth.theta, SEEN) - truth.y).abs().double().flatten(1).mean(1)
    assert (one.null_low + one.null_high) / 2 == pytest.approx(float(floor.mean()), rel=1e-5)
    assert (one.null_high - one.null_low) / 2 == pytest.approx(1.96 * math.sqrt(2) * float(floor.std()) / 20, rel=1e-4)


def test_comparison_is_its_definition_value_by_value():
    found, star = torch.randn(6, 3, 2, 4), torch.randn(3, 2, 4)
    found[1, 0] = found[0, 0]  # equal draws
    star[1, 0] = found[5, 1, 0]
    one = signals.against(found, star)
    for r in range(3):
        for t in range(4):
            error, held = 0.0, 0.0
            null, null_held = torch.zeros(6), torch.zeros(6)
            for p in range(2):
                values, true = found[:, r, p, t], star[r, p, t]
                error += float((values.mean() - true).abs()) / 2
                held += float(values[:5].min() <= true <= values[:5].max()) / 2
                for i in range(6):
                    others = values[torch.arange(6) != i]
                    null[i] += (others.mean() - values[i]).abs() / 2
                    null_held[i] += float(others.min() <= values[i] <= others.max()) / 2
            assert float(one.error[r, t]) == pytest.approx(error, abs=1e-6)
            assert torch.allclose(one.null_error[:, r, t], null.double(), atol=1e-6)
            assert float(one.held[r, t]) == pytest.approx(held)
            assert torch.allclose(one.null_held[:, r, t], null_held.double())
    assert not one.lost.any()


def test_bands_hold_as_often_as_they_say(normal_truth, by_name):
    outside: dict[str, int] = {}
    for _ in range(30):
        for metric, score in scores_of(Levels(), make_truth(normal_truth(60)), by_name).items():
            if score.null_low is not None and "diverged" not in metric and metric != "reconstruction_error":
                outside[metric] = outside.get(metric, 0) + (not score.null_low <= score.value <= score.null_high)
    assert len(outside) == 7
    assert all(count < 8 for count in outside.values()), outside  # 8 of 30 at 5 %: 1e-4


@pytest.mark.parametrize(("scale", "sign"), [(0.4, 1), (2.5, -1)])
def test_too_narrow_and_too_wide_draws_are_caught(normal_truth, by_name, scale, sign):
    scores = scores_of(Levels(scale), make_truth(normal_truth(200)), by_name)
    for metric in ("forecast_error/1x", "forecast_error/12x", "intervention_error"):
        edge = scores[metric].null_high if sign > 0 else scores[metric].null_low
        assert sign * (scores[metric].value - edge) > 0, metric
    coverage = scores["forecast_coverage/4x"]
    assert sign * (coverage.value - (coverage.null_low if sign > 0 else coverage.null_high)) < 0


@pytest.mark.parametrize("places", [(), (3,)])
def test_windows_begin_after_what_was_seen_and_end_where_they_say(normal_truth, by_name, monkeypatch, places):
    monkeypatch.setattr(signals, "LARGEST", 5000)  # several calls
    truth = make_truth(normal_truth(7), places)
    shift = torch.zeros(13 * SEEN)
    shift[:SEEN], shift[2 * SEEN : 5 * SEEN] = 100.0, -8.0
    scores = scores_of(Offset(truth, shift), truth, by_name)
    for horizon, share in ((1, 0.0), (4, 3 / 4), (12, 3 / 12)):
        assert scores[f"forecast_error/{horizon}x"].value == pytest.approx(8 * share)
        assert scores[f"forecast_coverage/{horizon}x"].value == pytest.approx(1 - share)
    shown = scores["forecast_coverage/4x"].artefacts
    assert shown["truth"].shape == (4, 5 * SEEN)
    for name in ("low", "median", "high"):
        assert torch.allclose(shown[name] - shown["truth"], shift[: 5 * SEEN].expand(4, -1), atol=1e-4)
    assert int(shown["place"]) == (1 if places else 0)
    error = (truth.signal(truth.theta, SEEN) + 100 - truth.y).abs().double().mean()
    for metric in ("reconstruction_error", "reconstruction_mean_error"):
        assert scores[metric].value == pytest.approx(float(error), rel=1e-5)


def test_reconstruction_is_of_one_draw_and_of_the_mean(normal_truth, by_name):
    truth = make_truth(normal_truth(3000))
    truth = replace(truth, y=truth.y * 0)  # draws are then N(0, 2) about what they are compared with
    scores = scores_of(Levels(), truth, by_name)
    one, mean = scores["reconstruction_error"], scores["reconstruction_mean_error"]
    assert one.value == pytest.approx(math.sqrt(2) * MEAN_ABSOLUTE, abs=4 * one.std_error)
    assert mean.value == pytest.approx(math.sqrt(2 / 20) * MEAN_ABSOLUTE, abs=4 * mean.std_error)


def test_who_does_not_follow_the_parameters_errs_in_proportion_to_the_factor(normal_truth, by_name):
    truth = make_truth(normal_truth(50), unknown=0.0)
    score = scores_of(Offset(truth, torch.zeros(13 * SEEN)), truth, by_name)["intervention_error"]
    factors = torch.tensor([0.2, 0.55, 0.9, 1.25, 1.6, 1.95, 2.3, 2.65, 3.0])
    size = truth.theta[:30, 0].abs()
    expected = (factors - 1).abs() * size.mean()
    assert torch.allclose(score.artefacts["factors"], factors)
    assert torch.allclose(score.artefacts["errors"], expected.double(), atol=1e-4)
    assert torch.allclose(score.per_measurement, ((factors - 1).abs().mean() * size).double(), atol=1e-4)
    assert score.value == pytest.approx(float(expected.mean()), rel=1e-4)
    assert score.null_high == pytest.approx(0.0, abs=1e-9), "draws that all agree claim no error"


def test_a_draw_that_diverges_is_told_and_no_error_is_made_of_the_others(normal_truth, by_name):
    truth = make_truth(normal_truth(10))
    posterior = Offset(truth, torch.zeros(13 * SEEN), broken=(3, 2, 4 * SEEN))
    scores = scores_of(posterior, truth, by_name)
    assert scores["forecast_diverged/1x"].value == 0
    assert scores["forecast_error/1x"].value == pytest.approx(0, abs=1e-6)
    assert scores["forecast_diverged/4x"].value == pytest.approx(1 / 20 / 10)
    assert not {"forecast_error/4x", "forecast_error/12x"} & set(scores)
    assert scores["forecast_coverage/4x"].value == pytest.approx(1 - 1 / 4 / 10), "it covers nothing from there on"
    assert scores["forecast_coverage/4x"].null_low is None


def test_interventions_that_diverge_have_no_error(normal_truth, by_name):
    truth = make_truth(normal_truth(10))

    class Explodes(Levels):
        def intervene(self, y: Tensor, n: int, theta: Tensor) -> Tensor:
            return super().intervene(y, n, theta) / (theta.abs() < 2 * truth.theta[: len(y)].abs())

    scores = scores_of(Explodes(), truth, by_name)
    assert scores["intervention_diverged"].value == pytest.approx(3 / 9), "at 2.3, 2.65 and 3 times the parameters"
    assert "intervention_error" not in scores


def test_what_cannot_be_compared_says_why(normal_truth, by_name):
    truth = make_truth(normal_truth(10))
    far = replace(truth, signal=lambda theta, steps: truth.signal(theta, steps) / (theta < 1e3).float() * torch.inf)
    with pytest.raises(ValueError, match=r"10 of 10 signals of the process are not finite over 78 times at 1 times"):
        scores_of(Levels(), far, by_name)
    short = replace(truth, signal=lambda theta, steps: truth.signal(theta, steps)[:, 1:])
    with pytest.raises(ValueError, match=r"shape \(10, 77\); expected \(10, 78\)"):
        scores_of(Levels(), short, by_name)
    with pytest.raises(ValueError, match="reconstructions hold NaN"):
        scores_of(Offset(truth, torch.zeros(78), broken=(0, 0, 0)), truth, by_name)

    class Short(Levels):
        def extrapolate(self, y: Tensor, n: int, horizon: int) -> Tensor:
            return self.reconstruct(y, n)

    with pytest.raises(
        ValueError, match=r"extrapolate\(\) returned signals of shape \(20, 10, 6\); expected \(20, 10, 7"
    ):
        scores_of(Short(), truth, by_name)


def test_nothing_where_posterior_or_process_have_no_signals(normal_truth):
    truth = make_truth(normal_truth(5))
    theta = torch.randn(5, 5, 1)
    assert list(Signals().score(Draws(theta), truth)) == []
    assert list(Signals().score(Draws(theta, signals=Levels()), replace(truth, signal=None))) == []


def test_one_measurement_has_errors_and_no_bands_of_the_test_set(normal_truth, by_name):
    scores = scores_of(Levels(), make_truth(normal_truth(1)), by_name)
    assert scores["reconstruction_error"].null_low is None
    assert scores["forecast_error/1x"].std_error is None
