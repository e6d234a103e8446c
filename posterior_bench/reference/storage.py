"""A reference on disk: ``references/<task>-v<version>/`` with tensors as safetensors and the record as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from ..records import check_name
from ..runtime import load_tensors, save_tensors, write_text
from .engine import Reference

TENSORS, RECORD = "reference.safetensors", "record.json"


def reference_folder(root: Path, task: str, version: int) -> Path:
    """Where the reference of a task lies below ``root``."""
    return root / "references" / f"{check_name(task, 'task')}-v{version}"


def write_reference(root: Path, reference: Reference, task: str | None = None, version: int | None = None) -> Path:
    """Write a reference below ``root`` and return its folder. The record, written last, says that it is whole.

    Args:
        root: any folder.
        reference: what is written.
        task, version: by default the simulator's name and version.
    """
    record = reference.record
    folder = reference_folder(root, task or str(record["simulator"]), version or int(record["simulator_version"]))
    tensors = {
        name: getattr(reference, name)
        for name in ("theta", "log_evidence", "log_evidence_error", "y", "truth")
        if getattr(reference, name) is not None
    }
    save_tensors(folder / TENSORS, tensors)
    write_text(folder / RECORD, json.dumps(record, indent=1, default=str) + "\n")
    return folder


def read_reference(root: Path, task: str, version: int) -> Reference:
    """Read what ``write_reference`` wrote.

    Raises:
        FileNotFoundError: where there is none.
    """
    folder = reference_folder(root, task, version)
    if not (folder / RECORD).exists():
        raise FileNotFoundError(f"no reference in {folder}; make it: posterior-bench reference {task} --out {root}")
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return Reference(**load_tensors(folder / TENSORS)[0], record=record)
