"""Exact draws score inside the null band as often as it says, for every score that has one."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

from posterior_bench import Score
from posterior_bench.evaluation import Calibration, LogScore, MAPEstimate, PosteriorMMD, Skill
from posterior_bench.evaluation.calibration import calibration_error, calibration_score, curve
from posterior_bench.runtime import scope

REPETITIONS = 40
GATE = ("coverage_bias", "rank_bias")
GATE_EDGE = 2.9348  # of three parameters at 99 %, against 1.96 of a single score at 95 %


@pytest.fixture(scope="module")
def repeated(problem) -> dict[str, list[Score]]:
    """Every score with a band, of as many test sets."""
    found = defaultdict(list)
    with scope(1):
        for _ in range(REPETITIONS):
            truth = problem.truth(120, reference=60)
            draws = problem.exact(truth, 60)
            for metric in (Calibration(), Skill(), LogScore(), MAPEstimate(), PosteriorMMD()):
                for score in metric.score(draws, truth):
                    if score.null_low is not None and score.null_high is not None and score.null_low < score.null_high:
                        found[score.metric].append(score)
    return found


def test_as_many_are_inside_as_the_band_says(repeated):
    assert {"calibration_error/a", "energy_skill", "log_score", "map_error", "err_post"} < set(repeated)
    for name, scores in repeated.items():
        assert len(scores) == REPETITIONS
        inside = sum(s.null_low <= s.value <= s.null_high for s in scores)
        # of 40 at 95 %, fewer than 31 are inside with probability 2e-5; the gate's own edges are at 99.7 % each
        assert inside >= (37 if name.startswith(GATE) else 31), (name, inside)
    hits = [s.null_low <= s.value <= s.null_high for n, f in repeated.items() if not n.startswith(GATE) for s in f]
    assert 0.92 < sum(hits) / len(hits) < 0.98


def test_bands_are_no_wider_than_they_need_be(repeated):
    for name, scores in repeated.items():
        if name.startswith(("calibration_error", "calibration_score", "regret_nats")):
            continue  # far from normal: see the test below; and a margin, which exact draws meet exactly
        # the band is of the score given the measurements: take its centre off
        centred = torch.tensor([s.value - (s.null_low + s.null_high) / 2 for s in scores], dtype=torch.float64)
        width = sum(s.null_high - s.null_low for s in scores) / REPETITIONS
        ratio = width / (2 * (GATE_EDGE if name.startswith(GATE) else 1.96) * float(centred.std()))
        assert 0.65 < ratio < 1.55, (name, ratio)  # 40 repetitions know a spread to 11 %


def test_bands_of_calibration_are_the_quantiles_of_uniform_ranks(problem, by_name):
    truth = problem.truth(120)
    scores = by_name(Calibration().score(problem.exact(truth, 60), truth))
    curves = curve(torch.rand(120, 20_000, dtype=torch.float64))
    at = torch.tensor([0.025, 0.975], dtype=torch.float64)
    for metric, expected in (
        ("calibration_error", calibration_error(curves).quantile(at)),
        ("calibration_score", calibration_score(curves, 120).quantile(at)),
    ):
        width = float(expected[1] - expected[0])
        for name in "abc":
            score = scores[f"{metric}/{name}"]
            assert score.null_low == pytest.approx(float(expected[0]), abs=0.05 * width)
            assert score.null_high == pytest.approx(float(expected[1]), abs=0.25 * width)  # 400 replicates, long tail
