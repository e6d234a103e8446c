"""The ten public measurements of each task of sbibm, with their true parameters and reference posteriors, from disk.

Lueckmann et al. 2021 (arXiv:2101.04653) score on ten measurements a task, which their package ships
(https://github.com/sbi-benchmark/sbibm). Its wheel, unpacked, has them in plain tables. The simulators here have its
order of parameters and of the numbers of a measurement, that of the distractors' permutation included, so that columns
are taken as they stand.

``python -m simulators.sbibm_observations FOLDER OUT`` writes each task's as a test set, ``OUT/<task>.safetensors``, and
a suite that scores on four of them, ``OUT/sbibm-public.toml``. A task there has the name, the simulator and the budgets
that it has in suite ``sbibm-small``, so that fits are shared with that suite.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from posterior_bench.runtime import save_tensors

OBSERVATIONS = 10


@dataclass(frozen=True)
class _Files:
    """Where the files of a task are, its number D of parameters and M of numbers of a measurement."""

    folder: str
    theta_dim: int
    y_dim: int
    observation: str = "observation.csv"


TASKS = {
    "gaussian_linear": _Files("gaussian_linear", 10, 10),
    "gaussian_linear_uniform": _Files("gaussian_linear_uniform", 10, 10),
    "gaussian_mixture_sbibm": _Files("gaussian_mixture", 2, 2),
    "two_moons": _Files("two_moons", 2, 2),
    "slcp": _Files("slcp", 5, 8),
    "slcp_distractors": _Files("slcp", 5, 100, "observation_distractors.csv"),
    "bernoulli_glm": _Files("bernoulli_glm", 10, 10),
    "bernoulli_glm_raw": _Files("bernoulli_glm", 10, 100, "observation_raw.csv"),
    "sir": _Files("sir", 2, 10),
    "lotka_volterra": _Files("lotka_volterra", 4, 20),
}
"""By the names of the simulators here. Variants of a task share parameters, and so their reference."""


@dataclass(frozen=True)
class PublicObservations:
    """The public test set of a task.

    Args:
        theta: (10, D), true parameters.
        y: (10, M), measurements.
        reference: (10, n, D), draws of their posteriors; n = 10,000 as published.
    """

    theta: Tensor
    y: Tensor
    reference: Tensor


def read_observations(folder: str | Path, task: str) -> PublicObservations:
    """The ten public measurements of a task.

    Args:
        folder: where the wheel of sbibm is unpacked; it holds ``sbibm/tasks``.
        task: one of ``TASKS``.

    Returns:
        Measurements 1 to 10 in this order, in single precision, as they were made.

    Raises:
        ValueError: on an unknown task, or a table of another shape or with numbers that are not finite.
        FileNotFoundError: where a file is missing.
    """
    if task not in TASKS:
        raise ValueError(f"found task {task!r}; expected one of {', '.join(TASKS)}")
    files = TASKS[task]
    root = Path(folder) / "sbibm" / "tasks" / files.folder / "files"
    theta: list[Tensor] = []
    y: list[Tensor] = []
    reference: list[Tensor] = []
    for number in range(1, OBSERVATIONS + 1):
        place = root / f"num_observation_{number}"
        theta.append(_table(place / "true_parameters.csv", files.theta_dim, rows=1))
        y.append(_table(place / files.observation, files.y_dim, rows=1))
        wanted = len(reference[0]) if reference else None
        reference.append(_table(place / "reference_posterior_samples.csv.bz2", files.theta_dim, rows=wanted))
    return PublicObservations(torch.cat(theta), torch.cat(y), torch.stack(reference))


def _table(path: Path, columns: int, rows: int | None) -> Tensor:
    """The numbers (rows, columns) below the header of a file; any number of rows but 0 where ``rows`` is ``None``."""
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {path}; expected the folder into which a wheel of sbibm was unpacked, with all files of "
            "its tasks: pip download --no-deps sbibm, then unzip the wheel there"
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="loadtxt: input contained no data")  # told below
            found = np.loadtxt(path, dtype=np.float32, delimiter=",", skiprows=1, ndmin=2)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a table of numbers below a header: {error}") from error
    if found.shape[1] != columns or len(found) == 0 or len(found) != (rows or len(found)):
        raise ValueError(
            f"{path} has {found.shape[0]} rows of {found.shape[1]} numbers; expected {rows or 'some'} of {columns}. It "
            "is of another version or task, or cut short: unpack the wheel again"
        )
    if not np.isfinite(found).all():
        raise ValueError(f"{path} holds numbers that are not finite; expected none: unpack the wheel again")
    return torch.from_numpy(found)


BUDGETS = (1000, 10_000)

PUBLISHED = {
    "two_moons": {"abc_rejection": ("0.960 ± 0.01", "0.847 ± 0.04"), "npe": ("0.725 ± 0.04", "0.606 ± 0.04")},
    "gaussian_mixture_sbibm": {
        "abc_rejection": ("0.860 ± 0.03", "0.781 ± 0.04"),
        "npe": ("0.716 ± 0.04", "0.615 ± 0.04"),
    },
    "gaussian_linear": {"abc_rejection": ("0.913 ± 0.03", "0.858 ± 0.04"), "npe": ("0.694 ± 0.04", "0.552 ± 0.03")},
    "slcp": {"abc_rejection": ("0.982 ± 0.01", "0.973 ± 0.01"), "npe": ("0.975 ± 0.01", "0.901 ± 0.05")},
}
"""The tasks of the suite, with the published C2ST of a method at each of the budgets: mean and sd over measurements."""

SCORING = {"two_moons": 45, "gaussian_mixture_sbibm": 45, "gaussian_linear": 600, "slcp": 200}
"""Seconds for the scores of a job on one core, nearly all of them the classifier's."""

TRAINING = {"abc_rejection": (1, 1), "npe": (20, 90)}
"""Seconds for a fit at each of the budgets."""

HEAD = """\
name = "sbibm-public"
title = "The ten public measurements of the published benchmark"
description = \"\"\"
Rejection ABC and NPE on the published benchmark's own ten measurements a task, against its own draws of the
posteriors: beside the published C2ST stands the same score of other fits. Tasks, budgets and methods are those of suite
`sbibm-small`, whose fits are taken where the store has them. Ten measurements say little of calibration, for which that
suite has 300.
\"\"\"
measurements = 20
draws = 500
budgets = [1000, 10000]
reference_measurements = 10
reference_draws = 500
dense_measurements = 10
dense_draws = 10000
timeout_minutes = 180
"""

TASK = """
[[tasks]]
simulator = "{task}"
test_set = "{task}.safetensors"
milliseconds = 0.001
"""

METHODS = """
[[methods]]
method = "prior"
seconds = {{ {prior} }}

[[methods]]
method = "abc_rejection"
options = {{ accept = 100, standardise = false, smooth = true }}
seconds = {{ {abc_rejection} }}

[[methods]]
method = "npe"
options = {{ reject = true }}
seconds = {{ {npe} }}
"""

TABLE = """
[[published]]
task = "{task}"
budget = {budget}
title = "C2ST of the published benchmark at {budget:,} simulations"
source = "Lueckmann, Boelts, Greenberg, Gonçalves & Macke (2021), Benchmarking Simulation-Based Inference, AISTATS, \
arXiv:2101.04964; values from its published result files"
note = "Mean and standard deviation over the same ten measurements, against the same draws, by the same classifier; \
one fit each."
columns = ["C2ST, network, N = 10,000"]
metrics = ["c2st_mlp_10000"]
rows = [
  {{ label = "REJ-ABC", method = "abc_rejection", values = ["{abc_rejection}"] }},
  {{ label = "NPE", method = "npe", values = ["{npe}"] }},
]
"""


def public_suite(tasks: Sequence[str]) -> str:
    """The TOML text of a suite on the public measurements.

    Args:
        tasks: names of ``PUBLISHED``; the files of their test sets stand beside that of the suite.
    """
    seconds = {"prior": ", ".join(f"{task} = {SCORING[task]}" for task in tasks)}
    for method, training in TRAINING.items():
        each = {task: [SCORING[task] + fit for fit in training] for task in tasks}
        seconds[method] = ", ".join(f"{task} = {found}" for task, found in each.items())
    tables = [
        TABLE.format(task=task, budget=budget, **{method: found[at] for method, found in PUBLISHED[task].items()})
        for task in tasks
        for at, budget in enumerate(BUDGETS)
    ]
    return "".join([HEAD, *(TASK.format(task=task) for task in tasks), METHODS.format(**seconds), *tables])


def write_public(folder: Path, out: Path) -> list[Path]:
    """Write the test set of each task whose files are there and, where one of ``PUBLISHED`` is, the suite last.

    Args:
        folder: as for ``read_observations``.
        out: folder to write to.

    Raises:
        FileNotFoundError: where no task is there, or one lacks some of its files.
        ValueError: as ``read_observations``.
    """
    root = folder / "sbibm" / "tasks"
    there = [
        task
        for task, files in TASKS.items()
        if (root / files.folder / "files" / "num_observation_1" / files.observation).is_file()
    ]
    if not there:
        raise FileNotFoundError(
            f"there are no measurements in {root}; expected the folder into which a wheel of sbibm was unpacked: "
            "pip download --no-deps sbibm, then unzip the wheel there"
        )
    paths = []
    for task in there:
        found = read_observations(folder, task)
        paths.append(out / f"{task}.safetensors")
        save_tensors(paths[-1], {"theta": found.theta, "y": found.y, "reference": found.reference})
    tasks = [task for task in PUBLISHED if task in there]
    if tasks:
        paths.append(out / "sbibm-public.toml")
        paths[-1].write_text(public_suite(tasks), encoding="utf-8")
    return paths


def main(
    folder: Annotated[Path, typer.Argument(help="Where a wheel of sbibm is unpacked: it holds sbibm/tasks.")],
    out: Annotated[Path, typer.Argument(help="Folder to write the test sets and the suite to.")],
) -> None:
    """Write the ten public measurements of each task of sbibm as test sets, and a suite that scores on them."""
    try:
        paths = write_public(folder, out)
    except (FileNotFoundError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    for path in paths:
        typer.echo(path)
    if paths[-1].suffix == ".toml":
        typer.echo(f"Run it: posterior-bench run {shlex.quote(str(paths[-1]))}")


if __name__ == "__main__":
    typer.run(main)
