from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
import torch
import xarray

from posterior_bench import Parameter
from posterior_bench.reporting import arviz_bridge, to_arviz
from posterior_bench.reporting.arviz_bridge import datasets, density_curve

PARAMETERS = (Parameter("depth", "mm", r"\delta"), Parameter("slope"))


def _arguments(draws: int = 40) -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "theta": torch.randn(draws, 3, 2),
        "parameters": PARAMETERS,
        "y": torch.randn(3, 2, 2),
        "prior": torch.randn(100, 2),
        "truth": torch.randn(3, 2),
        "y_names": ("u", "v", "w", "x"),
        "measurements": (4, 5, 9),
    }


def test_groups_coordinates_and_units() -> None:
    given = _arguments()
    tree = to_arviz(**given)
    for name in ("posterior", "prior", "observed_data", "constant_data"):
        assert name in tree.groups() if callable(tree.groups) else f"/{name}" in tree.groups
    posterior = tree["posterior"]
    assert dict(posterior.sizes) == {"chain": 1, "draw": 40, "measurement": 3}
    assert list(posterior["measurement"].values) == [4, 5, 9]
    assert posterior["depth"].attrs == {"units": "mm", "long_name": "depth", "symbol": r"\delta"}
    assert posterior["slope"].attrs == {"units": "1", "long_name": "slope"}
    np.testing.assert_array_equal(posterior["slope"].sel(measurement=5).values[0], given["theta"][:, 1, 1].numpy())
    assert dict(tree["prior"].sizes) == {"chain": 1, "draw": 100}
    np.testing.assert_array_equal(tree["prior"]["depth"].values[0], given["prior"][:, 0].numpy())
    observed = tree["observed_data"]["y"]
    assert float(observed.sel(measurement=9, y_name="w")) == pytest.approx(float(given["y"][2, 1, 0]))
    truth = tree["constant_data"]["depth"]
    assert float(truth.sel(measurement=4)) == pytest.approx(float(given["truth"][0, 0]))


def test_arviz_reads_what_it_gets() -> None:
    arviz = arviz_bridge._arviz()
    summary = arviz.summary(to_arviz(**_arguments(400)), var_names=["depth"])
    assert len(summary) == 3


def test_what_is_not_given_is_not_there() -> None:
    assert set(datasets(torch.zeros(5, 1, 2), PARAMETERS, torch.zeros(1, 3))) == {"posterior", "observed_data"}


def test_arviz_1_gets_a_data_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """ArviZ 1 builds from one nested dictionary, ``data``, and keeps the name InferenceData for xarray's tree."""

    def from_dict(data: object, *, coords: object = None, dims: object = None) -> None:
        raise AssertionError("the tree is built from data sets")

    new = types.SimpleNamespace(from_dict=from_dict, InferenceData=xarray.DataTree)
    monkeypatch.setattr(arviz_bridge, "_arviz", lambda: new)
    tree = to_arviz(**_arguments())
    assert isinstance(tree, xarray.DataTree)
    assert set(tree.children) == {"posterior", "prior", "observed_data", "constant_data"}
    assert tree["posterior"]["depth"].attrs["units"] == "mm"
    assert tree["posterior"]["depth"].dims == ("chain", "draw", "measurement")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"theta": torch.zeros(40, 2)}, "draws lead the batch"),
        ({"theta": torch.zeros(3, 40, 2)}, "draws lead the batch"),
        ({"y_names": ("u",)}, "one each"),
        ({"parameters": (Parameter("draw"), Parameter("b"))}, "name of a dimension"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_arviz(**_arguments() | change)


def test_the_density_of_a_uniform_reaches_its_bounds() -> None:
    torch.manual_seed(0)
    grid, density = density_curve(torch.rand(4000), (0.0, 1.0)) or pytest.fail("no curve")
    assert (grid[0], grid[-1]) == pytest.approx((0, 1), abs=0.01)
    assert abs(density - 1).max() < 0.25


def test_the_density_of_a_normal_ends_at_zero_and_integrates_to_one() -> None:
    torch.manual_seed(0)
    grid, density = density_curve(torch.randn(500)) or pytest.fail("no curve")
    assert max(density[0], density[-1]) < 0.003
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=0.01)
    exact = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
    assert abs(density - exact).max() < 0.08


def test_one_value_has_no_density() -> None:
    assert density_curve(torch.full((50,), 3.0)) is None
