"""Seeds, scopes and the content cache: the only code that touches global state."""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributions import Distribution

_cache_folder: ContextVar[Path | None] = ContextVar("cache_folder", default=None)
_memory: dict[str, dict[str, Tensor]] = {}


def digest(*names: object) -> str:
    """A stable hash (hex, 64 characters) of names, numbers and JSON-like values.

    >>> digest("test", "tissue", 1) == digest("test", "tissue", 1) != digest("test", "tissue1")
    True
    """
    text = json.dumps(names, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def seed_for(*names: object) -> int:
    """The seed of the random stream that ``names`` name: 0 <= seed < 2**63.

    >>> seed_for("simulations", "tissue", 1, 0, 3) == seed_for("simulations", "tissue", 1, 0, 3)
    True
    """
    return int(digest(*names)[:16], 16) >> 1


@contextmanager
def scope(
    seed: int,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    threads: int = 1,
) -> Iterator[None]:
    """Run a block with seeded generators and fixed defaults, and put everything back afterwards.

    Torch's checks of distribution arguments are switched on inside: importing zuko (and with it sbi) turns them off
    for the whole process, and a program must not behave differently for what else was imported.
    """
    device = torch.device(device)
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - plug-ins may use it
    torch_state = torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if device.type == "cuda" else None
    old_dtype, old_threads = torch.get_default_dtype(), torch.get_num_threads()
    old_device = torch.get_default_device()
    old_checks = Distribution._validate_args
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        if old_threads != threads:
            torch.set_num_threads(threads)
        if device != old_device:
            torch.set_default_device(device)
        Distribution.set_default_validate_args(True)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        torch.set_rng_state(torch_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
        torch.set_default_dtype(old_dtype)
        if old_threads != threads:
            torch.set_num_threads(old_threads)
        if device != old_device:
            torch.set_default_device(old_device)
        Distribution.set_default_validate_args(old_checks)


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    """Keep what ``cached`` makes inside the block in files below ``folder``, shared by processes."""
    token = _cache_folder.set(folder)
    try:
        yield
    finally:
        _cache_folder.reset(token)


def cached(key: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors named by their content: made on the first call, read back afterwards.

    Args:
        key: whatever determines the content: name, version, options.
        make: called where neither memory nor the folder of ``cache_in`` holds the tensors.
    """
    address = digest(key)[:32]
    folder = _cache_folder.get()
    path = None if folder is None else folder / f"{address}.safetensors"
    if address in _memory:
        tensors = _memory[address]
    elif path is not None and path.exists():
        tensors = load_tensors(path)[0]
    else:
        tensors = dict(make())
    if path is not None and not path.exists():
        save_tensors(path, tensors, {"key": key})
    _memory[address] = tensors
    return dict(tensors)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, object] | None = None) -> None:
    """Write tensors and a JSON header as safetensors; the file appears whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"header": json.dumps(header or {}, sort_keys=True)}
    with _whole(path) as temporary:
        save_file(plain, temporary, metadata=metadata)


def load_tensors(path: Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict]:
    """Tensors and header of a file written by ``save_tensors``."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        metadata = file.metadata() or {}
    return tensors, json.loads(metadata.get("header", "{}"))


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    with _whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its name at the end of the block, or vanishes on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".part-{secrets.token_hex(8)}"
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
