"""The latent space of a done job: indices that are known exactly, planes, and the file that comes later."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from posterior_bench import HasLatent
from posterior_bench.running import work
from posterior_bench.running.collect import collect
from posterior_bench.running.latent import DRAWS, GRID, MEASUREMENTS, different, latent_of
from posterior_bench.running.plan import plan
from posterior_bench.running.run import run
from posterior_bench.running.store import Store
from posterior_bench.running.suite import Suite
from posterior_bench.runtime import scope

MATRIX = torch.tensor([[3.0, 0.0, 0.1], [1.0, 2.0, 0.2]])
"""A of theta = mean(y) + A z: two parameters, three latent coordinates."""


class Affine(HasLatent):
    def __init__(self, matrix: Tensor = MATRIX) -> None:
        self.matrix = matrix

    @property
    def latent_dim(self) -> int:
        return self.matrix.shape[1]

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        return y.mean(1, keepdim=True) + z @ self.matrix.T


class Product(HasLatent):
    """theta = z_1 z_2: either coordinate is worth nothing without the other."""

    latent_dim = 2

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        return z.prod(-1, keepdim=True).expand(*z.shape[:2], 1)


def described(posterior: HasLatent, y: Tensor | None = None, prior_sd: Tensor | None = None):
    with scope(1):
        y = torch.randn(MEASUREMENTS, 2) if y is None else y
        return latent_of(posterior, y, torch.tensor([2.0, 0.5]) if prior_sd is None else prior_sd, 8)


def test_indices_of_a_linear_map_are_its_squared_entries() -> None:
    latent = described(Affine())
    exact = (MATRIX**2 / (MATRIX**2).sum(1, keepdim=True)).T
    # the mean of N squares of normals is known to sqrt(2 / N); so is the variance that they are divided by
    error = 4 * 2 * (2 / (MEASUREMENTS * DRAWS)) ** 0.5
    assert ((latent.total_effect - exact).abs() <= error * exact).all()
    torch.testing.assert_close(latent.spread, MATRIX.norm(dim=1) / torch.tensor([2.0, 0.5]), rtol=error, atol=0)
    change = 2**0.5 * MATRIX.T.abs() / torch.tensor([2.0, 0.5])  # z_k - z_k' has variance 2
    torch.testing.assert_close(latent.effect, change, rtol=error, atol=0)
    assert latent.order.tolist() == [0, 1, 2]


def test_coordinates_that_act_together_have_indices_that_add_up_to_more_than_one() -> None:
    latent = described(Product(), prior_sd=torch.ones(1))
    torch.testing.assert_close(latent.total_effect, torch.ones(2, 1), atol=0.25, rtol=0)


def test_planes_are_the_decoded_grid_of_the_two_strongest_coordinates() -> None:
    y = torch.arange(20.0).view(10, 2)
    latent = described(Affine(MATRIX[:, [2, 0, 1]]), y)
    assert latent.coordinates.tolist() == [1, 2]
    assert latent.places.tolist() == [0, 1, 2, 3]
    assert latent.planes.shape == (4, GRID, GRID, 2)
    middle = latent.planes[:, GRID // 2, GRID // 2]
    torch.testing.assert_close(middle, y[:4].mean(1, keepdim=True).expand(4, 2))
    # a step to the right is one of the first coordinate, a step up one of the second
    torch.testing.assert_close(latent.planes[0, GRID // 2, -1], y[0].mean() + 3 * MATRIX[:, 0])
    torch.testing.assert_close(latent.planes[0, -1, GRID // 2], y[0].mean() + 3 * MATRIX[:, 1])


def test_one_coordinate_has_an_effect_and_no_plane() -> None:
    latent = described(Affine(MATRIX[:, :1]))
    torch.testing.assert_close(latent.total_effect, torch.ones(1, 2), atol=0.2, rtol=0)
    assert latent.coordinates.numel() == latent.planes.numel() == 0


def test_a_parameter_that_does_not_vary_has_no_index() -> None:
    latent = described(Affine(torch.tensor([[1.0, 2.0], [0.0, 0.0]])))
    assert torch.isfinite(latent.total_effect[:, 0]).all()
    assert torch.isnan(latent.total_effect[:, 1]).all()
    assert latent.order.tolist() == [1, 0]


def test_of_classes_the_first_measurement_of_each_is_shown() -> None:
    y = torch.eye(3)[[1, 1, 0, 1, 2, 0]]
    assert different(y).tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    ("decode", "error", "message"),
    [
        (lambda z, y: z[0], ValueError, "draws lead, then measurements"),
        (lambda z, y: torch.full((*z.shape[:2], 2), torch.inf), ArithmeticError, "not finite"),
    ],
)
def test_a_broken_decode_is_told(decode, error, message) -> None:
    posterior = Affine()
    posterior.decode = decode
    with pytest.raises(error, match=message):
        described(posterior)


# in a store


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    """A store in which a suite of one method with a latent, one without and one that is broken was run."""
    store = Store(tmp_path_factory.mktemp("latent"))
    assert run(plan(_suite()), store, workers=0).ok == 3
    return store.root


def _suite():
    toys, latent = (Path(__file__).with_name(name) for name in ("toys.py", "latent_toys.py"))
    methods = [f"{latent}:WithLatent", f"{toys}:Regression", f"{latent}:BrokenLatent"]
    return Suite.model_validate(
        {
            "name": "toys",
            "measurements": 60,
            "draws": 40,
            "budgets": [300],
            "reference_measurements": 20,
            "reference_draws": 40,
            "tasks": [{"simulator": f"{toys}:Gaussian"}],
            "methods": [{"method": method} for method in methods],
        }
    )


def _bytes(root: Path, *patterns: str) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for pattern in patterns for p in sorted(root.glob(pattern))}


def test_a_run_leaves_the_latent_space_and_a_report_gets_it(ran) -> None:
    found = {job.method: job for job in collect(_suite(), Store(ran), "toys").jobs}
    latent = found["with_latent"].latent
    assert latent is not None
    torch.testing.assert_close(latent.total_effect, torch.eye(2), atol=0.2, rtol=0)
    assert latent.planes.shape == (4, GRID, GRID, 2)
    assert (found["regression"].latent, found["regression"].latent_problem) == (None, "")
    assert found["broken_latent"].status == "ok"
    assert (found["broken_latent"].latent, found["broken_latent"].latent_problem) == (None, "RuntimeError: no way back")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_job_that_was_done_without_gets_the_same_file_and_is_not_scored_again(ran, tmp_path, workers) -> None:
    old = tmp_path / "old"
    shutil.copytree(ran, old)
    shutil.rmtree(old / "latent-v1")
    before = {p: p.stat().st_mtime_ns for p in old.rglob("*") if p.is_file()}
    outcome = run(plan(_suite()), Store(old), workers=workers)
    assert (outcome.ok, outcome.reused) == (3, 3)
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert _bytes(old, "latent-v1/*") == _bytes(ran, "latent-v1/*")
    assert len(_bytes(ran, "latent-v1/*")) == 3


def test_nothing_is_described_twice_and_failures_when_asked(ran, monkeypatch) -> None:
    asked: list[str] = []
    describe = work.describe_latent
    monkeypatch.setattr(work, "describe_latent", lambda job, *rest: asked.append(job.method) or describe(job, *rest))
    run(plan(_suite()), Store(ran), workers=0)
    assert asked == []
    run(plan(_suite()), Store(ran), workers=0, retry=True)
    assert asked == ["broken_latent"]


def test_without_its_fit_a_job_stays_as_it_is(ran, tmp_path) -> None:
    old = tmp_path / "old"
    shutil.copytree(ran, old)
    shutil.rmtree(old / "latent-v1")
    shutil.rmtree(old / "fits")
    store, jobs = Store(old), plan(_suite())
    assert run(jobs, store, workers=0).reused == 3
    assert not list(old.glob("latent-v1/*"))
    assert not list(old.glob("fits/*")), "nothing is trained for a figure"
    with pytest.raises(FileNotFoundError, match="no fitted state"):
        work.describe_latent(replace(jobs[0]), store, "cpu")
