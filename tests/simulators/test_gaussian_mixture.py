"""The mixture against its own definition: a mode is drawn first, then theta from it, and the label is read off."""

from __future__ import annotations

import math

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Independent, Normal
from torch.nn.functional import one_hot

from baselines.anchors import Prior, Reference
from posterior_bench import HasLandmarks, MethodSpec, Problem, Simulations, Task, Truth
from posterior_bench.checks import check_simulator
from posterior_bench.checks.statistics import departure_from_uniform, distance_between, ranks
from posterior_bench.evaluation import draws_of, evaluate
from posterior_bench.priors import in_support
from posterior_bench.runtime import scope
from posterior_bench.training import ThetaMap
from simulators.gaussian_mixture import CENTRES, LABELS, GaussianMixture

SETTINGS = tuple(LABELS)
CENTRE = torch.tensor(CENTRES)
WIDE = 0.9
"""An sd at which the modes overlap, so that y is random given theta."""


def label_of_mode(labels: str) -> Tensor:
    return torch.tensor(LABELS[labels])


def measurement(*labels: int) -> Tensor:
    return one_hot(torch.tensor(labels), 8).float()


def mode_first(simulator: GaussianMixture, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Modes (n,), theta (n, 2) and labels (n,) in the order of the definition."""
    mode = torch.randint(8, (n,))
    theta = CENTRE[mode] + simulator.sd * torch.randn(n, 2)
    return mode, theta, label_of_mode(simulator.labels)[mode]


def log_densities(theta: Tensor, sd: float) -> Tensor:
    """log N(theta; c_k, sd^2 I) as (N, 8), by torch's own normal."""
    return Independent(Normal(CENTRE.double(), sd), 1).log_prob(theta.double()[:, None])


def test_centres_are_a_regular_octagon_of_side_two() -> None:
    centres = CENTRE.double()
    torch.testing.assert_close((centres - centres.roll(1, 0)).norm(dim=1), torch.full((8,), 2.0).double())
    torch.testing.assert_close(centres.norm(dim=1), torch.full((8,), math.sqrt(4 + 2 * math.sqrt(2))).double())
    assert CENTRES[0] == (-1 - math.sqrt(2), 1.0)
    assert CENTRES[3] == (1 + math.sqrt(2), 1.0)


def test_landmarks_are_the_modes() -> None:
    simulator = GaussianMixture()
    assert isinstance(simulator, HasLandmarks)
    assert simulator.landmarks.shape == (8, 2)
    density = simulator.prior().log_prob(simulator.landmarks)
    assert (density > simulator.prior().log_prob(simulator.landmarks + 0.5)).all()
    torch.testing.assert_close(density, density[:1].expand(8))


def test_labels_are_those_of_the_authors_code() -> None:
    assert LABELS == {"all": (0, 1, 2, 3, 4, 5, 6, 7), "some": (0, 0, 0, 0, 1, 1, 2, 3), "none": (0,) * 8}


@pytest.mark.parametrize("sd", [0.2, WIDE])
def test_prior_is_the_equal_mixture(sd: float) -> None:
    prior = GaussianMixture(sd=sd).prior()
    with scope(0):
        theta = prior.sample((40_000,))
    exact = log_densities(theta, sd).logsumexp(1) - math.log(8)
    torch.testing.assert_close(prior.log_prob(theta), exact.float(), atol=1e-4, rtol=0)
    # each coordinate has mean 0 and variance (radius^2) / 2 + sd^2
    variance = (4 + 2 * math.sqrt(2)) / 2 + sd**2
    assert theta.mean(0).abs().max() < 5 * math.sqrt(variance / 40_000)
    torch.testing.assert_close(theta.var(0), torch.full((2,), variance), rtol=0.03, atol=0)
    if sd == 0.2:
        mode = torch.cdist(theta, CENTRE).argmin(1)
        fractions = mode.bincount(minlength=8) / 40_000
        assert (fractions - 1 / 8).abs().max() < 5 * math.sqrt(1 / 8 * 7 / 8 / 40_000)
        torch.testing.assert_close((theta - CENTRE[mode]).std(0), torch.full((2,), 0.2), rtol=0.02, atol=0)


def test_prior_fits_the_maps_around_networks() -> None:
    prior = GaussianMixture().prior()
    with scope(1):
        theta = prior.sample((1000,))
    assert tuple(prior.event_shape) == (2,)
    assert tuple(prior.batch_shape) == ()
    assert in_support(prior, theta).all()
    assert not in_support(prior, torch.tensor([[math.nan, 0.0], [math.inf, 0.0]])).any()
    theta_map = ThetaMap.of(prior, theta)
    real = theta_map(theta)
    torch.testing.assert_close(real.std(0), torch.ones(2))
    torch.testing.assert_close(theta_map.inverse(real), theta)
    torch.testing.assert_close(theta_map.log_abs_det(theta), -theta.std(0).log().sum().expand(1000))
    with scope(1, dtype=torch.float64):
        assert GaussianMixture().prior().sample((3,)).dtype == torch.float64


@pytest.mark.parametrize("labels", SETTINGS)
def test_label_of_a_mode_at_its_centre(labels: str) -> None:
    with scope(2):
        y = GaussianMixture(labels).simulate(CENTRE.repeat(200, 1))
    assert torch.equal(y, one_hot(label_of_mode(labels), 8).float().repeat(200, 1))


@pytest.mark.parametrize("sd", [0.2, WIDE])
def test_half_way_between_two_modes_either_is_as_likely(sd: float) -> None:
    simulator = GaussianMixture("all", sd)
    half_way = (CENTRE[3:4] + CENTRE[4:5]) / 2
    exact = torch.stack([simulator.log_likelihood(half_way, measurement(k)) for k in range(8)]).exp()[:, 0]
    torch.testing.assert_close(exact[3], exact[4])
    if sd == 0.2:
        torch.testing.assert_close(exact[3], torch.tensor(0.5))
    with scope(3):
        frequency = simulator.simulate(half_way.expand(10_000, -1)).mean(0)
    assert (frequency - exact).abs().max() < 5 * 0.5 / math.sqrt(10_000)


@pytest.mark.parametrize("labels", SETTINGS)
@pytest.mark.parametrize("sd", [0.2, WIDE])
def test_likelihood_is_the_share_of_the_modes_with_that_label(labels: str, sd: float) -> None:
    simulator = GaussianMixture(labels, sd)
    with scope(4):
        theta = torch.cat([3 * torch.randn(200, 2), CENTRE])
    share = log_densities(theta, sd).softmax(1)
    expected = torch.zeros(len(theta), 8).double().index_add(1, label_of_mode(labels), share)
    found = torch.stack([simulator.log_likelihood(theta, measurement(k).expand(len(theta), -1)) for k in range(8)], 1)
    torch.testing.assert_close(found.exp(), expected.float(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(len(theta)), atol=1e-6, rtol=0)
    assert (found <= 0).all()


def test_likelihood_keeps_its_tails() -> None:
    """At the centre of one mode the opposite one is 2 r^2 / sd^2 nats less likely, far below the smallest float."""
    found = GaussianMixture("all").log_likelihood(CENTRE[:1], measurement(4))
    torch.testing.assert_close(found, torch.tensor([-2 * (4 + 2 * math.sqrt(2)) / 0.2**2]))


@pytest.mark.parametrize("y", [[0.0] * 8, [1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0], [0.9] + [0.0] * 7])
def test_a_measurement_that_no_theta_gives_is_impossible(y: list[float]) -> None:
    both = torch.cat([torch.tensor([y]), measurement(1)])
    found = GaussianMixture("some").log_likelihood(CENTRE[4:5].expand(2, -1), both)
    assert found[0] == -torch.inf
    assert torch.isfinite(found[1])
    with pytest.raises(
        ValueError, match=r"measurement 0 is \[.*expected a single 1 at one of the places \[0, 1, 2, 3\]"
    ):
        GaussianMixture("some").sample_reference(both, 3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_measurements_and_parameters(value: float) -> None:
    y = torch.full((1, 8), value)
    assert GaussianMixture().log_likelihood(CENTRE[:1], y).tolist() == [-math.inf]
    with pytest.raises(ValueError, match="no label of this mixture"):
        GaussianMixture().sample_reference(y, 3)
    failed = GaussianMixture().simulate(torch.tensor([[value, 0.0], [-1.0, 2.4]]))
    assert failed[0].isnan().all()
    assert failed[1].sum() == 1


@pytest.mark.parametrize("labels", ["all", "some"])
@pytest.mark.parametrize("sd", [0.2, WIDE])
def test_theta_first_and_mode_first_are_one_joint_distribution(labels: str, sd: float) -> None:
    """Labels are as frequent as their modes, and given a label theta is distributed alike."""
    simulator, n = GaussianMixture(labels, sd), 40_000
    with scope(5):
        theta = simulator.prior().sample((n,))
        label = simulator.simulate(theta).argmax(1)
        _, other, other_label = mode_first(simulator, n)
    exact = label_of_mode(labels).bincount(minlength=8) / 8
    frequency = label.bincount(minlength=8) / n
    assert ((frequency - exact).abs() <= 5 * (exact * (1 - exact) / n).sqrt()).all()
    directions = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, -1.0]])
    for k in label.unique():
        first, second = theta[label == k] @ directions, other[other_label == k] @ directions
        allowed = math.sqrt(math.log(2 * 4 / 1e-6) / 2 * (1 / len(first) + 1 / len(second)))
        for i in range(4):
            assert distance_between(first[:, i], second[:, i]) < allowed


@pytest.mark.parametrize("labels", SETTINGS)
@pytest.mark.parametrize("sd", [0.2, WIDE])
def test_noise_picks_the_mode_with_its_probability(labels: str, sd: float) -> None:
    simulator = GaussianMixture(labels, sd)
    points = torch.tensor([[0.0, 0.0], [2.0, 0.1], [-0.05, -2.0], [1.7, 1.7]])
    exact = torch.stack([simulator.log_likelihood(points, measurement(k).expand(4, -1)) for k in range(8)], 1).exp()
    n = 20_000
    with scope(6):
        theta = points.repeat_interleave(n, 0)
        noisy = simulator.simulate_from(theta, torch.randn(4 * n, simulator.noise_dim))
        plain = simulator.simulate(theta)
    allowed = 5 * (exact * (1 - exact) / n).sqrt() + 1e-6
    for y in (noisy, plain):
        assert ((y.view(4, n, 8).mean(1) - exact).abs() <= allowed).all()


def test_extreme_noise_picks_a_mode_that_is_possible() -> None:
    noise = torch.tensor([[-9.0], [9.0], [50.0]]).repeat(8, 1)
    theta = CENTRE.repeat_interleave(3, 0)
    y = GaussianMixture("all").simulate_from(theta, noise)
    possible = GaussianMixture("all").log_likelihood(theta, y)
    assert possible.min() > -40


@pytest.mark.parametrize("labels", SETTINGS)
@pytest.mark.parametrize("sd", [0.2, WIDE])
def test_ranks_of_the_truth_are_uniform(labels: str, sd: float) -> None:
    """Per coordinate, and by mode: the nearest mode of the truth is one more among those of its draws."""
    simulator = GaussianMixture(labels, sd)
    with scope(7):
        theta = simulator.prior().sample((2000,))
        draws = simulator.sample_reference(simulator.simulate(theta), 49)
        for k in range(2):
            assert departure_from_uniform(ranks(theta[:, k], draws[..., k])) == ""
        for centre in (CENTRE, CENTRE.flip(0), CENTRE.roll(3, 0)):
            truth, others = (torch.cdist(part.reshape(-1, 2), centre).argmin(1) for part in (theta, draws))
            assert departure_from_uniform(ranks(truth, others.view(49, 2000))) == ""


@pytest.mark.parametrize("k", range(4))
@pytest.mark.parametrize("sd", [0.2, WIDE])
def test_reference_agrees_with_weighted_draws_of_the_prior(k: int, sd: float) -> None:
    simulator, n = GaussianMixture("some", sd), 50_000
    y = measurement(k)
    with scope(8):
        exact = simulator.sample_reference(y, n)[:, 0]
        theta = simulator.prior().sample((n,))
    weight = simulator.log_likelihood(theta, y.expand(n, -1)).double().exp()
    effective = float(weight.sum() ** 2 / (weight**2).sum())
    assert effective > 1000
    assert abs(float(weight.mean()) - LABELS["some"].count(k) / 8) < 5 * 0.5 / math.sqrt(n)
    share = weight / weight.sum()
    error = 5 * math.sqrt(1 / n + 1 / effective)
    for quantity in (lambda t: t, lambda t: t**2, lambda t: t[:, :1] * t[:, 1:], lambda t: one_hot(nearest(t), 8)):
        values = quantity(exact).double()
        expected = (share[:, None] * quantity(theta).double()).sum(0)
        assert ((values.mean(0) - expected).abs() <= error * values.std(0) + 1e-6).all()


def nearest(theta: Tensor) -> Tensor:
    return torch.cdist(theta, CENTRE).argmin(1)


def test_reference_draws_belong_to_their_own_measurement() -> None:
    """A batch of different labels, each with its modes in equal parts and nothing else."""
    with scope(9):
        draws = GaussianMixture("some").sample_reference(measurement(3, 0, 1, 0, 2).double(), 4000)
    assert draws.shape == (4000, 5, 2)
    assert draws.dtype == torch.float64
    for j, modes in enumerate(((7,), (0, 1, 2, 3), (4, 5), (0, 1, 2, 3), (6,))):
        counts = nearest(draws[:, j].float()).bincount(minlength=8)
        assert counts.nonzero()[:, 0].tolist() == list(modes)
        assert (counts[list(modes)] / 4000 - 1 / len(modes)).abs().max() < 5 * 0.5 / math.sqrt(4000)
    assert not torch.equal(draws[:, 1], draws[:, 3])


@pytest.mark.parametrize("labels", ["all", "some", "none"])
def test_conforms(labels: str) -> None:
    findings = {f.name: f for f in check_simulator(GaussianMixture(labels))}
    assert {"noise", "likelihood", "reference_ranks", "picture"} <= set(findings)
    assert [f for f in findings.values() if not f.ok] == []


@pytest.mark.parametrize(
    ("options", "message"), [({"labels": "most"}, "'all', 'some', 'none'"), ({"sd": 0.0}, "sd 0.0")]
)
def test_wrong_options_are_told(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**options)


class Silent:
    def update(self, done: int, total: int, message: str = "") -> None:
        pass


@pytest.mark.parametrize("labels", SETTINGS)
def test_anchors_score_as_they_must(labels: str) -> None:
    """Every metric takes one-hot measurements, of which some columns are constant; the reference is in its bands."""
    simulator = GaussianMixture(labels)
    task = Task("mixture", simulator)
    with scope(10):
        theta = simulator.prior().sample((300,))
        y = simulator.simulate(theta)
        prior_draws = simulator.prior().sample((2000,))
        exact = simulator.sample_reference(y[:50], 200)
    truth = Truth(theta, y, simulator.prior(), prior_draws, simulator.spec.parameters, simulator.simulate, exact)
    values: dict[str, dict] = {}
    for method in (Prior(), Reference()):
        spec: MethodSpec = method.spec
        with scope(11):
            posterior = method.fit(Simulations(theta[:0], y[:0]), Problem(task, granted=spec.needs), Silent())
            draws = draws_of(posterior, y, 200)
        scores = {s.metric: s for s in evaluate(draws, truth)}
        assert all(math.isfinite(s.value) for s in scores.values())
        for name in ("coverage_bias/first", "coverage_bias/second", "rank_bias/first", "rank_bias/second"):
            assert scores[name].null_low <= scores[name].value <= scores[name].null_high
        values[spec.name] = {name: s.value for name, s in scores.items()}
    assert values["reference"]["err_resim"] == 0
    assert abs(values["reference"]["err_post"]) < 0.01
    if labels == "none":
        assert abs(values["reference"]["energy_skill"]) < 0.02
        assert values["prior"]["err_resim"] == 0
    else:
        assert values["reference"]["energy_skill"] > 0.3
        assert values["prior"]["err_resim"] > 0.5


def test_picture_fills_the_modes_of_the_label() -> None:
    axes = Figure().subplots()
    simulator = GaussianMixture("some")
    with scope(12):
        simulator.picture(axes, simulator.sample_reference(measurement(1), 100)[:, 0], measurement(1)[0])
    assert axes.get_aspect() == 1
    assert axes.get_xlabel() == r"$\theta_1$ [plane units]"
    filled = [patch.get_center() for patch in axes.patches if patch.get_facecolor()[3] > 0]
    assert filled == [CENTRES[4], CENTRES[5]]
    assert len(axes.patches) == 8
    assert len(axes.lines[0].get_xdata()) == 100
    assert len(axes.get_legend_handles_labels()[1]) == 3
