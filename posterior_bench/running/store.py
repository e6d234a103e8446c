"""The store: a folder in which every file appears whole or not at all, named by what it holds."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from torch import Tensor

from ..records import SCHEMA, Row, check_name
from ..runtime import load_tensors, save_tensors, write_text
from .job import Job
from .results import LATENT_VERSION, Artefact, Cost, Latent


def default_root() -> Path:
    """``$POSTERIOR_BENCH_STORE``, or a cache folder of the user's."""
    named = os.environ.get("POSTERIOR_BENCH_STORE")
    return Path(named).expanduser() if named else user_cache_path("posterior_bench")


class Store:
    """Where simulations, fits, rows and artefacts live.

    A job is done when its rows are there: they are written last. All else can be made again from its address.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def cache(self) -> Path:
        """Folder of ``posterior_bench.runtime.cached``."""
        return self.root / "cache"

    def chunk(self, simulations: str, repetition: int, index: int) -> Path:
        """One chunk of the simulations with that address."""
        return self.root / "simulations" / simulations / f"{repetition:03d}-{index:05d}.safetensors"

    def test_set(self, address: str) -> Path:
        """The test set with that address."""
        return self.root / "tests" / f"{address}.safetensors"

    def reference(self, address: str) -> Path:
        """Exact draws for the test set with that address."""
        return self.root / "references" / f"{address}.safetensors"

    def engine_record(self, address: str) -> Path:
        """How the reference engine found the exact draws with that address."""
        return self.reference(address).with_suffix(".json")

    def read_engine_record(self, job: Job) -> dict[str, Any]:
        """The record of the reference engine for a job, empty where it was not asked or is not done."""
        path = self.engine_record(job.reference_address)
        if not job.engine or not path.exists():
            return {}
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record

    def fit(self, job: Job) -> Path:
        """The fitted state of a job."""
        return self.root / "fits" / f"{job.fit}.safetensors"

    def rows(self, job: Job) -> Path:
        """The rows of a job."""
        folder = f"{job.task}-v{job.task_version}", f"{job.method}-v{job.method_version}"
        return self.root.joinpath("rows", *folder, f"{job.id}.jsonl")

    def cost(self, job: Job) -> Path:
        """What a job took."""
        return self.rows(job).with_suffix(".cost.json")

    def artefact(self, job: Job) -> Path:
        """What figures need of a job."""
        return self.root / "artefacts" / f"{job.id}.safetensors"

    def latent(self, job: Job) -> Path:
        """What the latent vector of a job's posterior does, or that it has none."""
        return self.root / f"latent-v{LATENT_VERSION}" / f"{job.id}.safetensors"

    def running(self, key: str) -> Path:
        """Where a running unit tells how far it has come."""
        return self.root / "running" / f"{key}.json"

    def write_rows(self, job: Job, rows: Sequence[Row]) -> None:
        """Write the rows of a job, which makes it done."""
        lines = (json.dumps(_finite(asdict(row)), sort_keys=True, ensure_ascii=False) for row in rows)
        write_text(self.rows(job), "\n".join(lines) + "\n")

    def read_rows(self, job: Job) -> tuple[Row, ...] | None:
        """The rows of a job, or ``None`` where it is not done, or was done under another schema."""
        path = self.rows(job)
        if not path.exists():
            return None
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if not records or any(record.get("schema") != SCHEMA for record in records):
            return None
        return tuple(Row(**record) for record in records)

    def write_cost(self, job: Job, cost: Cost) -> None:
        """Write what a job took."""
        write_text(self.cost(job), json.dumps(asdict(cost), indent=1, sort_keys=True) + "\n")

    def read_cost(self, job: Job) -> Cost | None:
        """What a job took, or ``None``."""
        path = self.cost(job)
        return self.read_cost_file(path) if path.exists() else None

    def read_cost_file(self, path: Path) -> Cost:
        """The cost in one of the store's files."""
        return Cost(**json.loads(path.read_text(encoding="utf-8")))

    def find_rows(self, job_id: str) -> list[Path]:
        """Files of rows of the job whose id begins with ``job_id``."""
        check_name(job_id, "job")
        return sorted((self.root / "rows").glob(f"*/*/{job_id}*.jsonl"))

    def write_artefact(self, job: Job, artefact: Artefact) -> None:
        """Write what figures need of a job."""
        tensors: dict[str, Tensor] = {
            "draws": artefact.draws,
            "truth": artefact.truth,
            "y": artefact.y,
            "prior": artefact.prior,
        }
        for group in ("per_measurement", "extra", "history"):
            tensors |= {f"{group}:{name}": value for name, value in getattr(artefact, group).items()}
        save_tensors(self.artefact(job), tensors)

    def read_artefact(self, job: Job) -> Artefact | None:
        """What figures need of a job, or ``None``."""
        path = self.artefact(job)
        if not path.exists():
            return None
        tensors, _ = load_tensors(path)
        groups: dict[str, dict[str, Tensor]] = {"per_measurement": {}, "extra": {}, "history": {}}
        for name in [n for n in tensors if ":" in n]:
            group, _, rest = name.partition(":")
            groups[group][rest] = tensors.pop(name)
        return Artefact(tensors["draws"], tensors["truth"], tensors["y"], tensors["prior"], **groups)

    def write_latent(self, job: Job, latent: Latent | None, problem: str = "") -> None:
        """Write what a latent vector does; ``None`` where there is none, or where a ``problem`` kept it from us."""
        tensors = {} if latent is None else {f.name: getattr(latent, f.name) for f in fields(Latent)}
        save_tensors(self.latent(job), tensors, {"problem": problem})

    def read_latent(self, job: Job) -> tuple[Latent | None, str]:
        """What a latent vector does, or ``None`` with the problem, which is empty where there was none."""
        path = self.latent(job)
        if not path.exists():
            return None, ""
        tensors, header = load_tensors(path)
        return Latent(**tensors) if tensors else None, header["problem"]

    def first_rows(self, paths: Sequence[Path], n: int) -> dict[str, Tensor]:
        """The first ``n`` rows of the tensors in chunk files, joined."""
        parts = [load_tensors(path)[0] for path in paths]
        return {name: torch.cat([part[name] for part in parts])[:n] for name in parts[0]}


def _finite(record: Mapping[str, object]) -> dict[str, object]:
    """A record that JSON can hold: a number that is not finite becomes ``None``."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
