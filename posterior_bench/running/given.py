"""Test sets that are given as files, in place of simulated ones.

A file (safetensors) holds T measurements ``y`` (T, *y_shape), the parameters ``theta`` (T, D) behind them and, where
they are known, ``reference`` (T, n, D): draws of the exact posterior of each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..contracts import Simulator
from ..priors import in_support
from ..runtime import digest, load_tensors
from .suite import SuiteError

NEEDED, POSSIBLE = ("theta", "y"), ("reference",)


@dataclass(frozen=True)
class GivenTestSet:
    """A file that was read once. Plain data, so that it can travel to another process.

    Args:
        path: of the file.
        content: a hash of its numbers; neither the path nor the layout of the file is part of it.
        measurements: T.
        draws: n, exact draws of each posterior; 0 where the file has none.
    """

    path: str
    content: str
    measurements: int
    draws: int

    @property
    def file(self) -> str:
        """The file's name without its folder."""
        return Path(self.path).name

    def tensors(self, device: str) -> dict[str, Tensor]:
        """What the file holds, in single precision.

        Raises:
            ValueError: where the file is no longer the one that was read.
        """
        found = _single(load_tensors(Path(self.path))[0])
        if _hash(found) != self.content:
            raise ValueError(
                f"{self.path} has changed since the jobs were planned; expected the same numbers: start the run again, "
                "and its test set is the new one"
            )
        return {name: tensor.to(device) for name, tensor in found.items()}


def read_test_set(path: str, simulator: Simulator) -> GivenTestSet:
    """Read and check a file.

    Args:
        path: of the file.
        simulator: the process behind the measurements.

    Raises:
        SuiteError: where it cannot be the test set of that simulator; the message begins with the path.
    """
    tensors = _load(path)
    found = ", ".join(sorted(tensors)) or "nothing"
    if not {*NEEDED} <= {*tensors} <= {*NEEDED, *POSSIBLE}:
        raise SuiteError(
            f"{path} holds {found}; expected theta and y, and reference or nothing else: rename its tensors"
        )
    _check_shapes(path, tensors, simulator)
    tensors = _single(tensors)
    for name, tensor in tensors.items():
        broken = int((~torch.isfinite(tensor).flatten(1).all(1)).sum())
        if broken:
            raise SuiteError(
                f"{path}: {name} has numbers that are not finite in single precision for {broken} of {len(tensor)} "
                "measurements; expected none: leave these measurements out"
            )
    theta = tensors["theta"]
    outside = int((~in_support(simulator.prior(), theta)).sum())
    if outside:
        raise SuiteError(
            f"{path}: theta of {outside} of {len(theta)} measurements lies outside the support of the prior of "
            f"{simulator.spec.name!r}; expected none: compare the units and the order of the columns with its "
            f"parameters, {', '.join(simulator.spec.names)}"
        )
    draws = tensors["reference"].shape[1] if "reference" in tensors else 0
    return GivenTestSet(path, _hash(tensors), len(theta), draws)


def _load(path: str) -> dict[str, Tensor]:
    cure = "safetensors.torch.save_file writes such a file"
    if not Path(path).is_file():
        raise SuiteError(f"there is no file {path}; expected safetensors, looked for from the suite's folder: {cure}")
    try:
        return load_tensors(Path(path))[0]
    except (SafetensorError, OSError, ValueError) as error:
        raise SuiteError(f"{path} cannot be read: {error}; expected safetensors: {cure}") from error


def _check_shapes(path: str, tensors: Mapping[str, Tensor], simulator: Simulator) -> None:
    spec = simulator.spec
    count = len(tensors["y"]) if tensors["y"].ndim else 0
    for name, sizes in (
        ("y", ("T", *spec.y_shape)),
        ("theta", (count, len(spec.parameters))),
        ("reference", (count, "n", len(spec.parameters))),
    ):
        if name not in tensors:
            continue
        tensor = tensors[name]
        shape = tuple(tensor.shape)
        if len(shape) != len(sizes) or any(size not in ("T", "n", had) for had, size in zip(shape, sizes, strict=True)):
            wanted = ", ".join(map(str, sizes)) + ("," if len(sizes) == 1 else "")
            raise SuiteError(
                f"{path}: {name} has shape {shape}; expected ({wanted}) for {spec.name!r} and the measurements y: put "
                "measurements first, a row each"
            )
        if not tensor.is_floating_point():
            raise SuiteError(f"{path}: {name} is {tensor.dtype}; expected floating-point numbers: convert it")
    if count < 2:
        raise SuiteError(
            f"{path} has {count} measurements; expected at least 2, for a spread over the test set: add more"
        )
    if "reference" in tensors and tensors["reference"].shape[1] < 2:
        found = tensors["reference"].shape[1]
        raise SuiteError(f"{path}: reference has {found} draws of each posterior; expected at least 2: leave it out")


def _single(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the precision of a simulated test set."""
    return {name: tensor.to(torch.float32) for name, tensor in tensors.items()}


def _hash(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, shapes and numbers."""
    numbers = {name: hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest() for name, t in tensors.items()}
    return digest({name: [list(t.shape), numbers[name]] for name, t in tensors.items()})
