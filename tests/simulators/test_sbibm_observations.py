"""The reader of sbibm's public measurements, on a small folder of the same form."""

from __future__ import annotations

import bz2
from pathlib import Path

import numpy as np
import pytest
import torch

from posterior_bench import registry
from simulators.sbibm_observations import TASKS, read_observations
from simulators.slcp import SLCPDistractors, distractor_mixture

DRAWS = 5


def text(values: np.ndarray) -> str:
    header = ",".join(f"column_{i + 1}" for i in range(values.shape[1]))
    return "\n".join([header, *(",".join(map(str, row)) for row in values.tolist())]) + "\n"


def write(folder: Path, task: str) -> None:
    """Ten measurements of which number k has true parameters k, k + 1, ... and so on."""
    files = TASKS[task]
    for k in range(1, 11):
        place = folder / "sbibm" / "tasks" / files.folder / "files" / f"num_observation_{k}"
        place.mkdir(parents=True, exist_ok=True)
        theta, y = np.arange(files.theta_dim)[None] + float(k), np.arange(files.y_dim)[None] + 100.5 * k
        (place / "true_parameters.csv").write_text(text(theta))
        (place / files.observation).write_text(text(y))
        draws = theta + 0.25 * np.arange(DRAWS)[:, None]
        (place / "reference_posterior_samples.csv.bz2").write_bytes(bz2.compress(text(draws).encode()))


@pytest.mark.parametrize("task", TASKS)
def test_reads_what_was_written(tmp_path: Path, task: str) -> None:
    write(tmp_path, task)
    found = read_observations(tmp_path, task)
    spec = registry.build("simulators", task).spec
    dim = len(spec.parameters)
    assert found.theta.shape == (10, dim)
    assert found.y.shape == (10, *spec.y_shape)
    assert found.reference.shape == (10, DRAWS, dim)
    assert found.theta[:, 0].tolist() == [float(k) for k in range(1, 11)]
    assert found.theta[3].tolist() == [4.0 + i for i in range(dim)]
    assert found.y[9, :2].tolist() == [1005.0, 1006.0]
    assert torch.equal(found.reference[:, 2], found.theta + 0.5)
    assert found.y.dtype == torch.float32


def test_distractors_are_where_the_public_measurements_have_them() -> None:
    """The first public measurement of slcp, as published, and where its eight numbers stand among the hundred."""
    points = [2.3718784, 0.49947417, 9.931435, 1.7136912, -10.436423, -1.9067793, -1.2343777, -0.09735]
    places = [22, 33, 23, 67, 42, 21, 16, 90]
    assert distractor_mixture()[2].argsort()[:8].tolist() == places
    hidden = torch.randn(1, 100)
    hidden[0, places] = torch.tensor(points)
    theta = torch.tensor([[0.5, 0.3, 1.5, -1.2, 0.4]])
    simulator = registry.build("simulators", "slcp")
    expected = simulator.log_likelihood(theta, torch.tensor([points]))
    torch.testing.assert_close(SLCPDistractors().log_likelihood(theta, hidden), expected)


def test_what_is_missing_or_wrong_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"found task 'moons'.*two_moons"):
        read_observations(tmp_path, "moons")
    with pytest.raises(FileNotFoundError, match=r"true_parameters\.csv; expected the folder"):
        read_observations(tmp_path, "two_moons")
    write(tmp_path, "two_moons")
    place = tmp_path / "sbibm" / "tasks" / "two_moons" / "files" / "num_observation_7"
    good = (place / "observation.csv").read_text()
    for bad, message in (
        ("a,b\n1.0,nan\n", "not finite"),
        ("a,b\n1.0,2.0,3.0\n", r"1 rows of 3 numbers; expected 1 of 2"),
        ("a,b\n1.0,2.0\n3.0,4.0\n", r"2 rows of 2 numbers; expected 1 of 2"),
        ("a,b\n", r"expected 1 of 2"),
        ("a,b\n1.0,x\n", "cannot be read"),
    ):
        (place / "observation.csv").write_text(bad)
        with pytest.raises(ValueError, match=message):
            read_observations(tmp_path, "two_moons")
    (place / "observation.csv").write_text(good)
    draws = place / "reference_posterior_samples.csv.bz2"
    whole = draws.read_bytes()
    draws.write_bytes(bz2.compress(b"a,b\n1.0,2.0\n"))
    with pytest.raises(ValueError, match=r"1 rows of 2 numbers; expected 5 of 2"):
        read_observations(tmp_path, "two_moons")
    draws.write_bytes(whole[:30])
    with pytest.raises(ValueError, match="cannot be read"):
        read_observations(tmp_path, "two_moons")
