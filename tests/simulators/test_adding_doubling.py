"""The solver against published numbers, closed forms and the symmetries of transport."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre
from torch import Tensor

from simulators.tissue import adding_doubling
from simulators.tissue.adding_doubling import Fluxes, boundary_reflectance, fluxes, layer_matrices, quadrature

SEMI_INFINITE = 1e5


def solve(albedo: object, thickness: object, anisotropy: object, **options: object) -> Fluxes:
    """Fluxes of one stack, given layer by layer; a number stands for one layer."""
    stack = (torch.tensor(np.atleast_2d(part), dtype=torch.float64) for part in (albedo, thickness, anisotropy))
    return fluxes(*stack, **options)


def random_stacks(count: int, layers: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(3, count, layers, generator=generator, dtype=torch.float64)
    return u[0] ** 0.3, 10 ** (4 * u[1] - 2), 1.8 * u[2] - 0.9


# Three layers, (mu_a, mu_s, g, d in cm) = (1, 100, 0.9, 0.1), (1, 10, 0, 0.1), (2, 10, 0.7, 0.2), n = 1.37
THREE_LAYERS = ([100 / 101, 10 / 11, 10 / 12], [10.1, 1.1, 2.4], [0.9, 0.0, 0.7])


@pytest.mark.parametrize(("points", "tolerance"), [(12, 4e-5), (24, 1e-5)])
def test_slab_of_van_de_hulst(points: int, tolerance: float) -> None:
    """Van de Hulst 1980, Multiple Light Scattering, as quoted in the manual of MCML, table 6.1."""
    result = solve(0.9, 2.0, 0.75, points=points)
    assert result.diffuse_reflectance.item() == pytest.approx(0.09739, abs=tolerance)
    assert result.transmittance.item() == pytest.approx(0.66096, abs=tolerance)


def test_half_space_of_giovanelli() -> None:
    """Giovanelli 1955, Optica Acta 2:153, in the MCML manual, table 6.2: 0.2600, of which 0.04 is specular."""
    result = solve(0.9, SEMI_INFINITE, 0.0, points=32, refractive_index=1.5)
    assert result.diffuse_reflectance.item() + 0.04 == pytest.approx(0.2600, abs=1e-4)
    assert result.transmittance.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("points", [12, 32])
def test_three_layers_of_mcml(points: int) -> None:
    """Sample runs of MCML: version 2.0, sample2.mco (means and their errors); version 1.2, sample.mco."""
    result = solve(*THREE_LAYERS, points=points, refractive_index=1.37)
    assert abs(result.diffuse_reflectance.item() - 0.237859) < 2 * 0.000312
    assert abs(result.transmittance.item() - 0.096222) < 2 * 0.000186
    assert result.diffuse_reflectance.item() == pytest.approx(0.237544, abs=1e-3)
    assert result.transmittance.item() == pytest.approx(0.0964896, abs=1e-3)
    specular = (0.37 / 2.37) ** 2
    absorbed = 1 - specular - result.diffuse_reflectance.item() - result.transmittance.item()
    assert absorbed == pytest.approx(0.641547, abs=2 * 0.000293)


@pytest.mark.parametrize(
    ("albedo", "anisotropy", "points", "indices", "published", "tolerance"),
    [
        # The tests of iadpython 0.5.3. Its first layer is the diamond one, which with 4 points costs it 4e-4 in UTU.
        (0.5, 0.9, 4, (1.0, None), (0.00585, 0.59232, 0.01641, 0.42287), 5e-4),
        (0.5, 0.9, 4, (1.4, None), (0.03859, 0.54038, 0.06527, 0.45887), 5e-4),
        # The command-line tests of iad (Prahl's program in C)
        (0.9, 0.8, 8, (1.0, None), (0.04242, 0.84561, 0.11660, 0.71057), 1e-5),
        (0.9, 0.8, 8, (1.4, 1.5), (0.10548, 0.72162, 0.17603, 0.59995), 1e-5),
    ],
)
def test_slabs_of_prahl(
    albedo: float, anisotropy: float, points: int, indices: tuple, published: tuple, tolerance: float
) -> None:
    """UR1, UT1, URU and UTU of slabs of optical thickness 1; UR1 there holds the specular reflection."""
    index, slide = indices
    result = solve(albedo, 1.0, anisotropy, points=points, refractive_index=index, slide_index=slide)
    surface = boundary_reflectance(torch.ones((), dtype=torch.float64), index, slide)
    found = (result.diffuse_reflectance + surface, *result[1:])
    assert [value.item() for value in found] == pytest.approx(published, abs=tolerance)


def test_angular_reflection_of_van_de_hulst() -> None:
    """A slab of albedo 0.8, thickness 2, isotropic: radiance at cosine 0.5 (van de Hulst 1980, table 12, p. 260)."""
    mu, weight = (torch.as_tensor(part) for part in quadrature(32))
    one = torch.ones(1, dtype=torch.float64)
    flux = (2 * mu * weight).sqrt()
    reflection, transmission = (
        matrix[0] / flux / flux[:, None] for matrix in layer_matrices(0.8 * one, 2 * one, 0 * one, mu, weight)
    )
    transmission = transmission - torch.diag(torch.exp(-2 / mu) / flux**2)  # the unscattered part
    for matrix, cosines, published in (
        (reflection, [1, 0.9, 0.7, 0.5, 0.3, 0.1], [0.28616, 0.30277, 0.34188, 0.39102, 0.45353, 0.53214]),
        (transmission, [1, 0.9, 0.7, 0.3, 0.1], [0.14864, 0.14731, 0.13963, 0.09425, 0.06601]),
    ):
        at_half = [interpolate(mu, column, 0.5) for column in matrix]
        found = [interpolate(mu, torch.tensor(at_half, dtype=torch.float64), cosine) for cosine in cosines]
        assert found == pytest.approx(published, abs=3e-5)


def interpolate(nodes: Tensor, values: Tensor, at: float) -> float:
    """The polynomial through all nodes (Lagrange)."""
    if (nodes == at).any():
        return values[nodes == at].item()
    total = 0.0
    for i in range(len(nodes)):
        others = torch.arange(len(nodes)) != i
        total += float(values[i] * ((at - nodes[others]) / (nodes[i] - nodes[others])).prod())
    return total


@pytest.mark.parametrize("albedo", [0.3, 0.5, 0.6, 0.8, 0.9, 0.95, 0.99, 0.999])
def test_half_space_of_chandrasekhar(albedo: float) -> None:
    """Isotropic half-space: 1 - sqrt(1 - a) H(1) and 1 - 2 sqrt(1 - a) alpha_1 (Chandrasekhar 1960, ch. V).

    H solves 1 / H(mu) = sqrt(1 - a) + a/2 int mu' H(mu') / (mu + mu') dmu'.
    """
    nodes, weights = legendre.leggauss(200)
    nodes, weights = np.append((nodes + 1) / 2, 1.0), np.append(weights / 2, 0.0)
    h = np.ones_like(nodes)
    for _ in range(1000):
        h = (h + 1 / (np.sqrt(1 - albedo) + albedo / 2 * (weights * nodes * h / np.add.outer(nodes, nodes)).sum(1))) / 2
    result = solve(albedo, SEMI_INFINITE, 0.0, points=24)
    assert result.diffuse_reflectance.item() == pytest.approx(1 - np.sqrt(1 - albedo) * h[-1], abs=2e-6)
    assert result.reflectance_of_diffuse.item() == pytest.approx(
        1 - 2 * np.sqrt(1 - albedo) * (weights * nodes * h).sum(), abs=2e-6
    )


@pytest.mark.parametrize("index", [1.0, 1.36, 1.5])
def test_pure_absorber(index: float) -> None:
    """Bouguer's law between two surfaces that reflect r: a geometric series."""
    thickness, r = 0.7, ((index - 1) / (index + 1)) ** 2
    result = solve(0.0, thickness, 0.5, refractive_index=index)
    once = np.exp(-thickness)
    assert result.transmittance.item() == pytest.approx((1 - r) ** 2 * once / (1 - (r * once) ** 2), rel=1e-8)
    assert result.diffuse_reflectance.item() == pytest.approx(
        (1 - r) ** 2 * r * once**2 / (1 - (r * once) ** 2), rel=1e-8, abs=1e-15
    )


@pytest.mark.parametrize("index", [1.0, 1.36])
def test_nothing_is_lost_without_absorption(index: float) -> None:
    _, thickness, anisotropy = random_stacks(50, 3)
    result = fluxes(torch.ones_like(thickness), thickness, anisotropy, index)
    entering = 1 - ((index - 1) / (index + 1)) ** 2
    assert torch.allclose(result.diffuse_reflectance + result.transmittance, torch.tensor(entering).double(), atol=1e-9)
    both = result.reflectance_of_diffuse + result.transmittance_of_diffuse
    assert torch.allclose(both, torch.ones_like(both), atol=1e-9)


def test_absorption_takes_its_share() -> None:
    """R + T falls as absorption grows, and never below 0."""
    _, thickness, anisotropy = random_stacks(50, 3)
    totals = []
    for albedo in (1.0, 0.99, 0.9, 0.5):
        result = fluxes(torch.full_like(thickness, albedo), thickness, anisotropy, 1.36)
        totals.append(result.diffuse_reflectance + result.transmittance)
    assert (torch.stack(totals).diff(dim=0) < 0).all()
    assert (totals[-1] > 0).all()


def test_a_layer_may_be_split() -> None:
    albedo, thickness, anisotropy = random_stacks(50, 2)
    whole = fluxes(albedo, thickness, anisotropy, 1.36)
    share = torch.tensor([0.3, 0.7, 0.5, 0.5], dtype=torch.float64)
    split = fluxes(
        albedo.repeat_interleave(2, 1),
        thickness.repeat_interleave(2, 1) * share,
        anisotropy.repeat_interleave(2, 1),
        1.36,
    )
    for one, two in zip(whole, split, strict=True):
        assert torch.allclose(one, two, rtol=1e-6, atol=1e-9)


def test_clear_layers_change_nothing() -> None:
    albedo, thickness, anisotropy = random_stacks(20, 2)
    clear = torch.zeros(20, 1, dtype=torch.float64)
    padded = [
        torch.cat([part[:, :1], other, part[:, 1:]], 1)
        for part, other in zip((albedo, thickness, anisotropy), (clear + 0.9, clear, clear + 0.8), strict=True)
    ]
    for one, two in zip(fluxes(albedo, thickness, anisotropy, 1.36), fluxes(*padded, 1.36), strict=True):
        assert torch.allclose(one, two, rtol=1e-10, atol=1e-14)


def test_reciprocity() -> None:
    """Diffuse light passes a stack equally well from both sides, and the matrices of a layer are symmetric."""
    stack = random_stacks(50, 3)
    upright, reversed_ = fluxes(*stack, 1.36), fluxes(*(part.flip(1) for part in stack), 1.36)
    assert torch.allclose(upright.transmittance_of_diffuse, reversed_.transmittance_of_diffuse, rtol=1e-8, atol=1e-14)
    assert not torch.allclose(upright.diffuse_reflectance, reversed_.diffuse_reflectance, rtol=1e-2)
    mu, weight = (torch.as_tensor(part) for part in quadrature(12, 1.36))
    for matrix in layer_matrices(*(part[:, 0] for part in stack), mu, weight):
        assert torch.allclose(matrix, matrix.mT, atol=1e-10)


def test_matrices_against_the_matrix_exponential() -> None:
    """R and T of a thin layer from exp of the transport operator, whose blocks give them in closed form."""
    mu, weight = (torch.as_tensor(part) for part in quadrature(8, 1.36))
    albedo, thickness, anisotropy = (torch.tensor([v], dtype=torch.float64) for v in (0.95, 0.3, 0.6))
    x, y = (part[0] for part in adding_doubling._transport(albedo, thickness, anisotropy, mu, weight))
    same, other = (x + y) / 2, (x - y) / 2  # down' = -same down - other up, up' = other down + same up
    operator = torch.cat([torch.cat([-same, -other], 1), torch.cat([other, same], 1)])
    # (down, up) at the bottom = exp(operator) (down, up) at the top, and nothing enters from below
    p = torch.linalg.matrix_exp(operator)
    reflection = -torch.linalg.solve(p[8:, 8:], p[8:, :8])
    transmission = p[:8, :8] + p[:8, 8:] @ reflection
    found = layer_matrices(albedo, thickness, anisotropy, mu, weight)
    assert torch.allclose(found[0][0], reflection, atol=1e-9)
    assert torch.allclose(found[1][0], transmission, atol=1e-9)


def test_first_layer_is_thin_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = random_stacks(300, 3)
    usual = fluxes(*stack, 1.36)
    monkeypatch.setattr(adding_doubling, "FIRST_THICKNESS", 1.0)
    for one, two in zip(usual, fluxes(*stack, 1.36), strict=True):
        assert torch.allclose(one, two, rtol=1e-6, atol=1e-12)


def test_rows_are_independent() -> None:
    stack = random_stacks(300, 3)  # more than one chunk
    together = fluxes(*stack, 1.36)
    for row in (0, 17, 299):
        alone = fluxes(*(part[row : row + 1] for part in stack), 1.36)
        for one, many in zip(alone, together, strict=True):
            assert torch.allclose(one[0], many[row], rtol=1e-11)


@pytest.mark.parametrize(
    ("part", "value"), [(0, torch.nan), (0, 1.1), (0, -0.1), (1, -1.0), (1, torch.inf), (2, 1.0), (2, -1.0), (2, 2.0)]
)
def test_unphysical_input_is_nan_and_spoils_nothing(part: int, value: float) -> None:
    stack = [tensor.clone() for tensor in random_stacks(3, 2)]
    expected = fluxes(*stack, 1.36)
    stack[part][1, 0] = value
    for tensor in stack:
        tensor.requires_grad_()
    found = fluxes(*stack, 1.36)
    for one, two in zip(found, expected, strict=True):
        assert one[1].isnan()
        assert torch.allclose(one[[0, 2]], two[[0, 2]], rtol=1e-11)
    found.diffuse_reflectance[[0, 2]].sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in stack)


def test_gradient() -> None:
    """Against finite differences, on layers that double several times and on thin ones, with and without boundary."""
    albedo = torch.tensor([[0.9, 0.5], [0.99, 0.95]], dtype=torch.float64, requires_grad=True)
    thickness = torch.tensor([[0.05, 3.0], [20.0, 1.3]], dtype=torch.float64, requires_grad=True)
    anisotropy = torch.tensor([[0.8, 0.0], [0.9, -0.4]], dtype=torch.float64, requires_grad=True)
    for index in (1.0, 1.4):
        assert torch.autograd.gradcheck(
            lambda a, b, g, n=index: tuple(fluxes(a, b, g, n, points=4)), (albedo, thickness, anisotropy), eps=1e-7
        )


def test_no_gradient_is_kept_unasked() -> None:
    assert not fluxes(*random_stacks(2, 2), 1.36).diffuse_reflectance.requires_grad


def test_float32_and_no_rows() -> None:
    stack = random_stacks(5, 2)
    single = fluxes(*(part.float() for part in stack), 1.36).diffuse_reflectance
    assert single.dtype == torch.float64
    assert torch.allclose(single, fluxes(*stack, 1.36).diffuse_reflectance, rtol=1e-4)
    assert fluxes(*(part[:0] for part in stack), 1.36).transmittance.shape == (0,)


@pytest.mark.parametrize("points", [4, 8, 12, 24])
def test_quadrature(points: int) -> None:
    """Radau points integrate polynomials up to degree 2N - 2; with a boundary, each half up to its own degree."""
    mu, weight = quadrature(points)
    assert mu[-1] == 1
    assert (np.diff(mu) > 0).all()
    for degree in range(2 * points - 1):
        assert (weight * mu**degree).sum() == pytest.approx(1 / (degree + 1), abs=1e-13)
    mu, weight = quadrature(points, 1.36)
    critical = np.sqrt(1 - 1 / 1.36**2)
    assert (mu < critical).sum() == points // 2
    assert mu[-1] == 1
    for degree in range(points - 1):
        assert (weight * mu**degree)[mu < critical].sum() == pytest.approx(critical ** (degree + 1) / (degree + 1))
        assert (weight * mu**degree).sum() == pytest.approx(1 / (degree + 1), abs=1e-13)


def test_fresnel() -> None:
    """Normal incidence, total reflection, Brewster's angle (where half the light has no reflection), no boundary."""
    brewster = 1 / np.sqrt(1 + (1 / 1.5) ** 2)
    cosines = torch.tensor([1.0, 0.1, brewster], dtype=torch.float64)
    s = ((1 - 1.5**2) / (1 + 1.5**2)) ** 2  # at Brewster's angle
    expected = torch.tensor([0.04, 1.0, s / 2], dtype=torch.float64)
    assert torch.allclose(boundary_reflectance(cosines, 1.5), expected)
    assert (boundary_reflectance(cosines, 1.0) < 1e-30).all()
    slide = boundary_reflectance(cosines, 1.4, 1.4)  # a slide of the medium's own index is none
    assert torch.allclose(slide, boundary_reflectance(cosines, 1.4))


def test_messages() -> None:
    with pytest.raises(ValueError, match="found 5 quadrature points"):
        quadrature(5)
    with pytest.raises(ValueError, match=r"refractive index 0\.9"):
        quadrature(8, 0.9)
    with pytest.raises(ValueError, match=r"one shape \(B, L\)"):
        fluxes(torch.ones(2), torch.ones(2), torch.ones(2))
