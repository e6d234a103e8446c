"""The tissue simulator by its distribution, its physics and its reference posterior."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Normal

from posterior_bench.priors import in_support
from posterior_bench.runtime import scope
from simulators.tissue import Tissue, model

SO2, V_HB1, A_MIE1, G1, D1, V_HB2 = range(6)
SMALL = Tissue(reference_bank=3000)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with scope(1):
        yield


def typical(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return SMALL.prior().sample((n,)).to(dtype)


# --- the prior ---------------------------------------------------------------------------------------------------


def test_spec() -> None:
    spec = Tissue().spec
    assert spec.names == (
        *("sO2", "v_hb1", "a_mie1", "g1", "d1", "v_hb2", "a_mie2", "g2", "d2", "v_hb3", "a_mie3", "g3", "d3"),
    )
    assert [p.unit for p in spec.parameters[:5]] == ["", "", "1/cm", "", "mm"]
    assert spec.y_shape == (8,)
    assert spec.y_names[:2] == ("log R(580 nm)", "log R(470 nm)")
    assert "Wirkert 2016 colon model with adding-doubling" in spec.description


def test_prior() -> None:
    """Ranges and means of the colon column; a_mie truncated, so that no value has an atom."""
    prior = SMALL.prior()
    theta = prior.sample((20_000,)).double()
    assert in_support(prior, theta.float()).all()
    low = [0.0001, 0.0001, 0.1, 0.8, 0.6, 0.0001, 0.1, 0.8, 0.415, 0.0001, 0.1, 0.8, 0.395]
    high = [1.0, 0.1, math.inf, 0.95, 1.01, 0.1, math.inf, 0.95, 0.847, 0.1, math.inf, 0.95, 0.603]
    for column, (bottom, top) in enumerate(zip(low, high, strict=True)):
        marginal = stats.uniform(bottom, top - bottom)
        if math.isinf(top):
            marginal = stats.truncnorm((0.1 - 18.9) / 10.2, math.inf, 18.9, 10.2)
        assert stats.kstest(theta[:, column].numpy(), marginal.cdf).pvalue > 1e-4
        assert len(theta[:, column].unique()) > 0.95 * 20_000  # float32 has few values between 0.8 and 0.95
    correlation = torch.corrcoef(theta.T) - torch.eye(13)
    assert correlation.abs().max() < 5 / math.sqrt(20_000)


# --- the process -------------------------------------------------------------------------------------------------


def test_noise_is_gaussian_in_log_reflectance() -> None:
    theta = typical(250)
    mean = SMALL.log_reflectance(theta)
    noise = (SMALL.simulate(theta) - mean) * SMALL.snr
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    correlation = torch.corrcoef(noise.T) - torch.eye(8)
    assert correlation.abs().max() < 4.5 / math.sqrt(250)
    given = torch.randn(250, 8, dtype=torch.float64)
    y = Tissue(snr=20.0).simulate_from(theta, given)
    assert torch.allclose(y, mean + given / 20, rtol=1e-13)


def test_likelihood_is_that_of_the_noise() -> None:
    theta = typical(20)
    y = SMALL.simulate(theta)
    expected = Normal(SMALL.log_reflectance(theta), 0.1).log_prob(y).sum(-1)
    assert torch.allclose(SMALL.log_likelihood(theta, y), expected, rtol=1e-12)


def test_batches_equal_single_calls() -> None:
    theta = typical(40)
    together = SMALL.log_reflectance(theta)
    single = torch.cat([SMALL.log_reflectance(row[None]) for row in theta])
    assert torch.allclose(together, single, rtol=1e-11)


def test_numbers_are_those_of_theta() -> None:
    theta = typical(5, torch.float32)
    noise = torch.zeros(5, 8)
    assert SMALL.simulate(theta).dtype == torch.float32
    assert SMALL.log_likelihood(theta, SMALL.simulate(theta)).dtype == torch.float32
    exact = SMALL.simulate_from(theta.double(), noise.double())
    assert torch.equal(SMALL.simulate_from(theta, noise), exact.float())


def test_reflectances_of_the_prior() -> None:
    """5, 50 and 95 % of all reflectances are 0.03, 0.19 and 0.50, as in the data this model comes from."""
    reflectance = SMALL._bank()["log_reflectance"].exp().flatten()
    found = reflectance.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.03, 0.19, 0.50], rel=0.1)


def test_tissue_that_fails_is_nan() -> None:
    theta = typical(6)
    good = SMALL.log_reflectance(theta)
    broken = theta.clone()
    broken[1, G1] = 1.2
    broken[2, D1] = -0.1
    broken[3, SO2] = torch.nan
    broken[4, A_MIE1] = -5.0
    y = SMALL.simulate_from(broken, torch.zeros(6, 8, dtype=torch.float64))
    assert y[1:5].isnan().all()
    assert torch.allclose(y[[0, 5]], good[[0, 5]], rtol=1e-11)
    value = SMALL.log_likelihood(broken, good)
    assert (value[1:5] == -torch.inf).all()
    assert value[[0, 5]].isfinite().all()


def test_no_scattering_reflects_by_surfaces_alone() -> None:
    """A layer without scattering is legal: a_mie = 0 in all three leaves the reflection at the bottom."""
    theta = typical(3)
    theta[:, [2, 6, 10]] = 0.0
    theta[:, [1, 5, 9]] = 1e-5
    r = (0.36 / 2.36) ** 2
    assert torch.allclose(SMALL.log_reflectance(theta).exp(), torch.tensor((1 - r) ** 2 * r).double(), rtol=0.1)


def test_thicker_and_thinner_alike() -> None:
    """k times the absorption and scattering over 1 / k of the length is the same optical layer."""
    theta = typical(10)
    other = theta.clone()
    for layer, k in enumerate((1.3, 0.7, 1.1)):
        other[:, 1 + 4 * layer : 3 + 4 * layer] *= k
        other[:, 4 + 4 * layer] /= k
    assert torch.allclose(SMALL.log_reflectance(theta), SMALL.log_reflectance(other), rtol=1e-9)


def test_haemoglobin_only_rescales_blood() -> None:
    theta = typical(5)
    more = theta.clone()
    more[:, [1, 5, 9]] *= 150 / 120
    richer = Tissue(haemoglobin_g_per_l=150.0)
    assert torch.allclose(SMALL.log_reflectance(more), richer.log_reflectance(theta), rtol=1e-10)


def test_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few nodes a band against the mean of the window in steps of 1 nm (trapezium)."""
    theta = typical(30)
    ours = SMALL.log_reflectance(theta)

    def fine() -> tuple[np.ndarray, np.ndarray]:
        steps = np.arange(-5.0, 6.0)
        share = np.where(np.abs(steps) == 5, 0.05, 0.1)
        return np.add.outer(model.BANDS_NM, steps).ravel(), np.kron(np.eye(8), share[:, None])

    def centres() -> tuple[np.ndarray, np.ndarray]:
        return np.array(model.BANDS_NM, dtype=float), np.eye(8)

    monkeypatch.setattr(model, "_camera", fine)
    exact = SMALL.log_reflectance(theta)
    monkeypatch.setattr(model, "_camera", centres)
    naive = SMALL.log_reflectance(theta)
    error, naive_error = ((values - exact).square().mean(0).sqrt() for values in (ours, naive))
    two_nodes = torch.tensor([band in model.TWO_NODES_NM for band in model.BANDS_NM])
    assert error.max() < 0.015  # against a noise of 0.1
    assert error[two_nodes].max() < 0.01
    assert (error[two_nodes] < naive_error[two_nodes] / 3).all()
    assert naive_error[two_nodes].max() > 0.03


def test_twelve_directions_are_enough() -> None:
    theta = typical(30)
    error = SMALL.log_reflectance(theta) - Tissue(quadrature_points=40).log_reflectance(theta)
    assert error.square().mean().sqrt() < 0.002
    assert error.abs().max() < 0.004


def test_gradient() -> None:
    theta = typical(2).requires_grad_()
    with torch.no_grad():
        y = SMALL.simulate(theta)
    scale = SMALL.prior().sample((100,)).std(0).double()  # finite differences in units of the prior

    def value(z: Tensor) -> Tensor:
        return SMALL.log_likelihood(theta.detach() + scale * z, y)

    zero = torch.zeros(2, 13, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, zero, eps=1e-6, atol=1e-4)
    noise = torch.zeros(2, 8, dtype=torch.float64, requires_grad=True)
    SMALL.simulate_from(theta, noise).sum().backward()
    assert torch.allclose(noise.grad, torch.full_like(noise, 0.1))
    assert theta.grad.isfinite().all()


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"snr = 0; expected a positive"):
        Tissue(snr=0)
    with pytest.raises(ValueError, match=r"shape \(3, 12\); expected \(N, 13\)"):
        Tissue().log_reflectance(torch.ones(3, 12))


# --- the reference posterior -------------------------------------------------------------------------------------


def test_bank_is_drawn_from_its_own_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "cached", lambda key, make: make())
    tissue = Tissue(reference_bank=20)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = tissue._bank()
    assert torch.equal(torch.rand(1), expected)
    second = tissue._bank()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])
    assert first["theta"].dtype == torch.float64
    other = Tissue(reference_bank=20, quadrature_points=8)._bank()
    assert not torch.equal(other["theta"], first["theta"])


def test_one_bank_serves_every_noise_level(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    monkeypatch.setattr(model, "cached", lambda key, make: keys.append(key))
    for options in ({}, {"snr": 3.0}, {"quadrature_points": 8}, {"refractive_index": 1.4}, {"reference_bank": 9}):
        Tissue(**options)._bank()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_reference_is_the_weighted_bank() -> None:
    """Weights, effective size and draws against the likelihood itself."""
    tissue = Tissue(snr=3.0, reference_bank=60)
    bank = tissue._bank()["theta"]
    y = tissue.simulate(typical(3))
    likelihood = torch.stack([tissue.log_likelihood(bank, row.expand(60, -1)) for row in y])
    weights = likelihood.softmax(-1)
    assert torch.allclose(tissue.reference_effective_size(y), 1 / weights.square().sum(-1), rtol=1e-9)
    draws = tissue.sample_reference(y, 20_000)
    assert draws.shape == (20_000, 3, 13)
    for column, row in enumerate(weights):
        index = (draws[:, column, None, 0] == bank[:, 0]).double()
        counts = index.sum(0)
        expected = 20_000 * row
        assert counts.sum() == 20_000
        assert ((counts - expected).abs() < 5 * expected.sqrt() + 5).all()


def test_reference_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    y = SMALL.simulate(typical(7))
    whole = SMALL.reference_effective_size(y)
    monkeypatch.setattr(model, "BLOCK", 2 * 3000)
    assert torch.allclose(SMALL.reference_effective_size(y), whole, rtol=1e-12)
    assert SMALL.sample_reference(y.float(), 5).shape == (5, 7, 13)
    assert SMALL.sample_reference(y.float(), 5).dtype == torch.float32


def test_reference_of_a_failed_measurement() -> None:
    y = SMALL.simulate(typical(3))
    y[1] = torch.nan
    draws = SMALL.sample_reference(y, 10)
    assert draws[:, 1].isnan().all()
    assert draws[:, [0, 2]].isfinite().all()


def test_failed_bank_draws_weigh_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = {name: tensor.clone() for name, tensor in SMALL._bank().items()}
    bank["log_reflectance"][:1500] = torch.nan
    bank["theta"][:1500] = -1.0
    monkeypatch.setattr(model, "cached", lambda key, make: bank)
    assert (SMALL.sample_reference(SMALL.simulate(typical(5)), 200) > 0).all()


def coverage(tissue: Tissue, reference: Tissue, measurements: int = 400, draws: int = 300) -> Tensor:
    """p-values (13,) of the randomised ranks of the truth being uniform."""
    theta = typical(measurements)
    found = reference.sample_reference(tissue.simulate(theta), draws)
    less, ties = (found < theta).sum(0), (found == theta).sum(0)
    u = (less + torch.rand(theta.shape, dtype=torch.float64) * (ties + 1)) / (draws + 1)
    return torch.tensor([stats.kstest(column.numpy(), "uniform").pvalue for column in u.T])


def test_reference_is_calibrated() -> None:
    """At SNR 2, where a small bank suffices; and the test notices a posterior that is too narrow."""
    noisy = Tissue(snr=2.0, reference_bank=3000)
    assert coverage(noisy, noisy).min() > 1e-3 / 13
    assert coverage(noisy, Tissue(snr=5.0, reference_bank=3000))[SO2] < 1e-6


def posterior(bank: dict[str, Tensor], y: Tensor, scale_known: bool) -> tuple[Tensor, Tensor]:
    """Effective size as a fraction of the bank, and sd over prior sd, medians over measurements, at SNR 10.

    Without a known scale, the measurement is R / sum R: to first order, log R up to a constant.
    """
    centre, theta = bank["log_reflectance"], bank["theta"]
    if not scale_known:
        centre, y = (part - part.mean(-1, keepdim=True) for part in (centre, y))
    weights = torch.softmax(-50 * torch.cdist(y, centre) ** 2, -1)
    variance = weights @ theta.square() - (weights @ theta).square()
    size = 1 / weights.square().sum(-1)
    return size.median() / len(theta), (variance / theta.var(0)).sqrt().median(0).values


@pytest.mark.parametrize(("bank", "tolerance"), [(3000, 0.08), pytest.param(30_000, 0.05, marks=pytest.mark.slow)])
def test_what_the_colours_tell(bank: int, tolerance: float) -> None:
    """Posterior widths as known for this model: only sO2, blood and scattering of the top layer are recoverable.

    The normalised measurements of the 2016 paper give ratios of 0.28, 0.59 and 0.89 with 2.8 % of the bank effective;
    absolute reflectances tell more about a_mie1.
    """
    tissue = Tissue(reference_bank=bank)
    y = tissue.simulate(typical(200))
    size, ratio = posterior(tissue._bank(), y, scale_known=False)
    assert size.item() == pytest.approx(0.028, abs=0.01)
    assert ratio[[SO2, V_HB1, A_MIE1, V_HB2]].tolist() == pytest.approx([0.28, 0.59, 0.89, 0.96], abs=tolerance)
    assert (ratio[[3, 4, *range(6, 13)]] > 0.9).all()
    size, ratio = posterior(tissue._bank(), y, scale_known=True)
    assert size.item() == pytest.approx(0.008, abs=0.003)
    assert ratio[[SO2, V_HB1]].tolist() == pytest.approx([0.28, 0.57], abs=tolerance)
    assert ratio[A_MIE1] < 0.8
    reference = tissue.sample_reference(y, 300)
    drawn = (reference.std(0) / tissue._bank()["theta"].std(0)).median(0).values
    assert torch.allclose(drawn, ratio, atol=0.05)
