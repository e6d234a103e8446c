"""Our batched solver against iadpython's primitives, one thread, side by side in one run, on the same tissues.

iadpython 0.5.3 has no correct call for different layers, but its primitives are right: the matrices of one layer,
``add_layers`` (``add_layers_basic`` with both roles), and a surface above and below. They serve here as they would in
a loop over tissues: one sample object, its quadrature computed once.
"""

from __future__ import annotations

import time

import iadpython
import numpy as np
import pytest
import torch

from simulators.tissue import Tissue, model
from simulators.tissue.adding_doubling import fluxes

INDEX, POINTS = 1.36, 12
AT_LEAST = 10
"""Times as many reflectances a second."""


def stacks(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Optics (count, 3) of tissues drawn from the prior, as the simulator hands them to the solver."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "fluxes", lambda *arguments: seen.extend(arguments[:3]) or fluxes(*arguments))
        torch.manual_seed(0)
        Tissue().log_reflectance(Tissue().prior().sample((count // 11 + 1,)))
    return tuple(part[:count] for part in seen)


def with_iadpython(stack: tuple[torch.Tensor, ...], first_thickness: float | None = None) -> np.ndarray:
    """Diffuse reflectances of stacks, layer by layer; ``first_thickness`` replaces its rule for the first layer."""
    sample = iadpython.Sample(n=INDEX, quad_pts=POINTS)
    sample.update_quadrature()
    result = []
    for albedo, thickness, anisotropy in zip(*(part.numpy() for part in stack), strict=True):
        layers = []
        for sample.a, sample.b, sample.g in zip(albedo, thickness, anisotropy, strict=True):
            if first_thickness is None:
                layers.append(iadpython.combine.simple_single_layer_matrices(sample))
                continue
            end = sample.b_delta_M()
            sample.b_thinnest = end / 2 ** max(0, np.ceil(np.log2(end / (first_thickness * sample.nu[0]))))
            start = iadpython.start.diamond(sample)
            layers.append(iadpython.combine.double_until(sample, *start, sample.b_thinnest, end))
        down_r, up_r, down_t, up_t = (layers[0][0], layers[0][0], layers[0][1], layers[0][1])
        for reflection, transmission in layers[1:]:
            down_r, up_r, down_t, up_t = iadpython.add_layers(
                sample, down_r, up_r, down_t, up_t, reflection, reflection, transmission, transmission
            )
        top, bottom = (iadpython.boundary_layer(sample, top=side) for side in (True, False))
        matrices = iadpython.add_slide_above(sample, *top, down_r, up_r, down_t, up_t)
        down_r, _, down_t, _ = iadpython.add_slide_below(sample, *matrices, *bottom)
        result.append(sample.UX1_and_UXU(down_r, down_t)[0])
    return np.array(result) - ((INDEX - 1) / (INDEX + 1)) ** 2


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


def test_same_values() -> None:
    """To 1e-6, once iadpython's first layer is as thin as that takes (its own rule leaves an error of some 1e-6)."""
    stack = stacks(60)
    found = fluxes(*stack, INDEX, POINTS).diffuse_reflectance.numpy()
    assert np.abs(found - with_iadpython(stack, first_thickness=0.125)).max() < 1e-6
    assert np.abs(found - with_iadpython(stack)).max() < 2e-5


@pytest.mark.benchmark(group="three-layer reflectances, 12 points, one thread")
def test_speed(benchmark) -> None:
    stack = stacks(4096)
    few = tuple(part[:60] for part in stack)
    fluxes(*stack, INDEX, POINTS)
    theirs = []

    def other() -> None:  # in turn, so that a busy machine slows both
        start = time.perf_counter()
        with_iadpython(few)
        theirs.append((time.perf_counter() - start) / len(few[0]))

    benchmark.pedantic(fluxes, args=(*stack, INDEX, POINTS), setup=other, rounds=5)
    ours = np.array(benchmark.stats.stats.data) / len(stack[0])
    ratio = float(np.median(theirs / ours))
    speeds = {"ours": 1 / np.median(ours), "iadpython": 1 / np.median(theirs), "ratio": ratio}
    benchmark.extra_info.update(speeds)
    print(
        "\nthree-layer reflectances a second: ours {ours:,.0f}, iadpython {iadpython:,.0f}, {ratio:.0f} x".format(
            **speeds
        )
    )
    assert ratio >= AT_LEAST
