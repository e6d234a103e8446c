from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from posterior_bench import Draws
from posterior_bench.evaluation.c2st import (
    FOLDS,
    ForestTwoSample,
    NetworkTwoSample,
    folds,
    forest_accuracy,
    network_accuracy,
    null_band,
)
from posterior_bench.evaluation.classifier import ALPHA, Stack, train


def test_gradient_is_that_of_the_loss():
    stack = Stack.drawn(3, 2, 4, torch.zeros((), dtype=torch.float64))
    features, labels = torch.randn(3, 7, 2, dtype=torch.float64), (torch.rand(3, 7) < 0.5).double()
    gradient = torch.empty_like(stack.flat)
    loss = stack.loss_and_gradient(features.mT, labels, gradient)
    flat = stack.flat.clone().requires_grad_()
    (w1, b1), (w2, b2), (w3, b3) = stack.layers(flat)
    logits = (w3 @ (w2 @ (w1 @ features.mT + b1).relu() + b2).relu() + b3).squeeze(1)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)
    expected = expected + ALPHA / 2 / 7 * sum((w**2).sum((1, 2)) for w in (w1, w2, w3))
    expected.sum().backward()
    assert torch.allclose(loss, expected.detach())
    assert torch.allclose(gradient, flat.grad)
    assert torch.allclose(stack.logits(features), logits.detach())


def test_each_network_learns_its_own_labels_also_after_others_have_stopped():
    features = 3 * torch.randn(3, 60, 2)
    labels = torch.stack([features[0, :, 0] > 0, features[1, :, 1] < 0, torch.zeros(60, dtype=torch.bool)])
    answers = train(features, labels, 20, 500).logits(features) > 0
    assert ((answers == labels).double().mean(1) > 0.9).all()


def test_folds_hold_every_draw_out_once():
    draws, reference = torch.randn(20, 3, 2) + 5, torch.randn(20, 3, 2)
    features, labels, held, answers = folds(draws, reference)
    assert features.shape == (3 * FOLDS, 32, 2)
    assert held.shape == (3 * FOLDS, 8, 2)
    assert answers.view(3, -1).sum(1).tolist() == [20, 20, 20]
    assert (labels.sum(1) + answers.sum(1)).tolist() == [20] * 15
    exact = held.view(3, -1, 2)[0][answers.view(3, -1)[0] == 0]
    assert torch.allclose(exact.mean(0), torch.zeros(2), atol=1e-5)
    assert torch.allclose(exact.std(0), torch.ones(2), atol=1e-5)
    scaled = (draws[:, 0] - reference[:, 0].mean(0)) / reference[:, 0].std(0)
    found = held.view(3, -1, 2)[0][answers.view(3, -1)[0] == 1]
    assert torch.allclose(found.sort(0).values, scaled.sort(0).values, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_same_value_as_the_library_s_network():
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    reference, draws = torch.randn(250, 2, 2), 2 * torch.randn(250, 2, 2)
    ours = network_accuracy(draws, reference, passes=60)
    for k in range(2):
        scaled = (torch.cat([reference[:, k], draws[:, k]]) - reference[:, k].mean(0)) / reference[:, k].std(0)
        network = MLPClassifier(hidden_layer_sizes=(20, 20), max_iter=60, random_state=k)
        split = KFold(FOLDS, shuffle=True, random_state=k)
        theirs = cross_val_score(network, scaled.numpy(), [0] * 250 + [1] * 250, cv=split).mean()
        # other folds and other random weights: two answers of 500 examples each, half independent
        assert float(ours[k]) == pytest.approx(theirs, abs=0.06)
    assert float(ours.mean()) > 0.57  # the best possible rule reaches 0.66


def pair(problem, truth, dense: int, size: int = 4, **options):
    """Draws with dense ones for the first measurements, and the truth with as many exact ones."""
    y = truth.y[:size]
    exact = replace(truth, dense_reference=problem.draws(y, dense))
    return Draws(problem.draws(truth.y, 5), dense=problem.draws(y, dense, **options)), exact


def test_exact_draws_lie_in_the_band_and_wrong_ones_do_not(problem):
    truth = problem.truth(20)
    metric = NetworkTwoSample(passes=30)
    (exact,) = metric.score(*pair(problem, truth, 400))
    assert exact.metric == "c2st_mlp_400_passes_30"
    assert exact.null_low < exact.value < exact.null_high
    assert exact.per_measurement.shape == (4,)
    for options in ({"scale": 0.5}, {"scale": 2.0}, {"shift": 0.5}):
        (wrong,) = metric.score(*pair(problem, truth, 400, **options))
        assert wrong.value > exact.null_high + 0.03, options


def test_the_forest_too(problem):
    truth = problem.truth(20)
    metric = ForestTwoSample(measurements=1)
    (exact,) = metric.score(*pair(problem, truth, 103))
    assert exact.metric == "c2st_rf_100"
    assert exact.null_low < exact.value < exact.null_high
    assert exact.per_measurement.shape == (1,)
    (wrong,) = metric.score(*pair(problem, truth, 103, scale=0.4))
    assert wrong.value > exact.null_high
    assert float(forest_accuracy(torch.zeros(10, 1, 1), torch.ones(10, 1, 1))) == 1.0


def test_the_band_holds_as_often_as_it_says():
    """Each measurement is a null of its own."""
    each = network_accuracy(torch.randn(150, 150, 1), torch.randn(150, 150, 1), passes=15)
    low, high = null_band(150, 1)
    inside = float(((each >= low) & (each <= high)).double().mean())
    assert 0.91 < inside <= 1.0  # of 150 at 95 %, fewer with probability 0.02; the lower edge is generous
    assert float((each > high).double().mean()) < 0.07
    # a coin with the commoner label of the rest: half of the lower edge's allowance is reached by a constant answer
    heads = torch.stack([(torch.randperm(300) < 150).view(5, 60).double().mean(1) for _ in range(2000)])
    constant = torch.where(heads > 0.5, 1 - heads, heads).mean()
    assert float(constant) == pytest.approx(0.5 - 1 / (3.14159 * 150) ** 0.5, abs=0.003)


def test_sizes_and_what_is_refused(problem):
    truth = problem.truth(20)
    draws, exact = pair(problem, truth, 33, size=3)
    (score,) = NetworkTwoSample(size=21).score(draws, exact)
    assert score.metric == "c2st_mlp_20"
    fewer = replace(exact, dense_reference=exact.dense_reference[:, :1])
    (score,) = NetworkTwoSample(passes=5).score(draws, fewer)
    assert (score.metric, len(score.per_measurement)) == ("c2st_mlp_30_passes_5", 1)
    assert score.std_error is None
    assert list(NetworkTwoSample().score(draws, truth)) == [], "no dense exact draws"
    assert list(ForestTwoSample().score(replace(draws, dense=None), exact)) == [], "no dense draws"
    for wrong in (torch.full((9, 5, 3), torch.nan), torch.zeros(4, 5, 3), torch.zeros(9, 21, 3), torch.zeros(9, 5, 2)):
        with pytest.raises(ValueError, match="found a dense reference of shape"):
            list(NetworkTwoSample().score(draws, replace(exact, dense_reference=wrong)))
    with pytest.raises(ValueError, match="found dense draws of shape"):
        list(NetworkTwoSample().score(replace(draws, dense=torch.full((9, 5, 3), torch.inf)), exact))
