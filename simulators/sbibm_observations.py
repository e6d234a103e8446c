"""The ten public measurements of each task of sbibm, with their true parameters and reference posteriors, from disk.

Lueckmann et al. 2021 (arXiv:2101.04653) score on ten measurements a task, which their package ships
(https://github.com/sbi-benchmark/sbibm). Its wheel, unpacked, has them in plain tables. The simulators here have its
order of parameters and of the numbers of a measurement, that of the distractors' permutation included, so that columns
are taken as they stand.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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
