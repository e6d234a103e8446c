"""The reader of sbibm's public measurements, on a small folder of the same form."""

from __future__ import annotations

import bz2
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from posterior_bench import registry
from posterior_bench.running.plan import plan
from posterior_bench.running.suite import load_suite
from posterior_bench.runtime import load_tensors
from simulators.sbibm_observations import PUBLISHED, TASKS, main, read_observations, write_public
from simulators.slcp import SLCPDistractors, distractor_mixture

DRAWS = 5


def text(values: np.ndarray) -> str:
    header = ",".join(f"column_{i + 1}" for i in range(values.shape[1]))
    return "\n".join([header, *(",".join(map(str, row)) for row in values.tolist())]) + "\n"


def write(folder: Path, task: str, scale: float = 1.0) -> None:
    """Ten measurements of which number k has true parameters k, k + 1, ... times ``scale`` and so on."""
    files = TASKS[task]
    for k in range(1, 11):
        place = folder / "sbibm" / "tasks" / files.folder / "files" / f"num_observation_{k}"
        place.mkdir(parents=True, exist_ok=True)
        theta, y = scale * (np.arange(files.theta_dim)[None] + float(k)), np.arange(files.y_dim)[None] + 100.5 * k
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


def test_test_sets_and_a_suite_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for task in ("two_moons", "slcp", "sir"):
        write(tmp_path, task, scale=0.01)
    out = tmp_path / "my public"
    main(tmp_path, out)
    names = ["two_moons.safetensors", "slcp.safetensors", "sir.safetensors", "sbibm-public.toml"]
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines == [str(out / name) for name in names]
    assert last == f"Run it: posterior-bench run '{out / names[-1]}'"
    tensors, _ = load_tensors(out / "slcp.safetensors")
    found = read_observations(tmp_path, "slcp")
    assert set(tensors) == {"theta", "y", "reference"}
    assert all(torch.equal(tensor, getattr(found, name)) for name, tensor in tensors.items())
    suite = load_suite(str(out / names[-1]))
    jobs = plan(suite)
    assert {job.task for job in jobs} == {"two_moons", "slcp"}
    assert {(job.measurements, job.dense_measurements, job.has_reference) for job in jobs} == {(10, 10, True)}
    assert len(jobs) == 2 * (1 + 2 + 2)
    assert all(job.seconds is not None for job in jobs)
    shared = {job.fit for job in plan(load_suite("sbibm-small"))}
    assert {job.fit for job in jobs} <= shared, "a fit of the one suite serves the other"


def test_the_suite_prints_the_values_of_the_shipped_one(tmp_path: Path) -> None:
    for task in PUBLISHED:
        write(tmp_path, task, scale=0.01)
    (path,) = (path for path in write_public(tmp_path, tmp_path / "out") if path.suffix == ".toml")
    shipped = {
        (table.task, table.budget, row.method): row.values
        for table in load_suite("sbibm-small").published
        for row in table.rows
        if row.method is not None
    }
    own = {(t.task, t.budget, row.method): row.values for t in load_suite(str(path)).published for row in t.rows}
    assert len(own) == 4 * 2 * 2
    assert own.items() <= shipped.items()


def test_a_folder_without_measurements_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        main(tmp_path, tmp_path / "out")
    assert ended.value.exit_code == 2
    assert "expected the folder into which a wheel of sbibm was unpacked" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
