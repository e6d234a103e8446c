"""Checks of what every simulator promises; those of optional capabilities are in ``capabilities``."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..contracts import Simulator
from ..priors import in_support
from ..records import Spec
from ..runtime import scope
from .capabilities import capability_checks
from .findings import Failure, Finding, require_frozen_defaults, run
from .statistics import largest_excess


def check_simulator(simulator: Simulator, simulations: int = 500, measurements: int = 200) -> list[Finding]:
    """Check that a simulator keeps its contract, and that its optional capabilities agree with ``simulate``.

    Args:
        simulator: an instance, with the options to be checked.
        simulations: size of the batches from which distributions are compared.
        measurements: number on which the ranks of the truth among reference draws are tested.

    Returns:
        One finding a check. Where a basic one fails, those that rest on it are left out.
    """
    basic = [partial(check, simulator) for check in (_spec, _prior, _shapes)]
    further = [
        partial(_dtype_and_device, simulator),
        partial(_arguments_unchanged, simulator),
        partial(_failed_rows, simulator, simulations),
        partial(_repeatable, simulator),
        partial(_global_seed, simulator),
        partial(_independent_rows, simulator),
        *capability_checks(simulator, simulations, measurements),
    ]
    return run([*basic, *further], essential=len(basic))


def _spec(simulator: Simulator) -> str:
    if not isinstance(simulator, Simulator):
        raise Failure(f"a {type(simulator).__name__}", "an instance of Simulator", "Derive from Simulator.")
    require_frozen_defaults(simulator)
    spec = simulator.spec
    if not isinstance(spec, Spec):
        raise Failure(f"a spec of type {type(spec).__name__}", "a Spec", "Return a posterior_bench.Spec.")
    if not spec.parameters or not isinstance(spec.version, int) or spec.version < 1:
        raise Failure(
            f"{len(spec.parameters)} parameters and version {spec.version!r}",
            "at least one parameter and a whole version from 1 on",
            "Complete the spec.",
        )
    return f"{spec.name} version {spec.version}: {len(spec.parameters)} parameters, y_shape {tuple(spec.y_shape)}"


def _prior(simulator: Simulator) -> str:
    prior, dim = simulator.prior(), len(simulator.spec.parameters)
    if tuple(prior.batch_shape) != () or tuple(prior.event_shape) != (dim,):
        raise Failure(
            f"a prior of batch_shape {tuple(prior.batch_shape)} and event_shape {tuple(prior.event_shape)}",
            f"() and ({dim},), one column a parameter",
            "Wrap it in torch.distributions.Independent(prior, 1), or use posterior_bench.priors.Product.",
        )
    theta = prior.sample((100,))
    if tuple(theta.shape) != (100, dim) or not torch.isfinite(theta).all():
        raise Failure(f"prior draws of shape {tuple(theta.shape)}, or not finite", f"finite ones, (100, {dim})", "")
    if not in_support(prior, theta).all():
        raise Failure("prior draws outside the prior's support", "none", "Correct the support of the prior.")
    density = prior.log_prob(theta)
    if tuple(density.shape) != (100,) or not torch.isfinite(density).all():
        raise Failure(
            f"a log density of shape {tuple(density.shape)}, or not finite at the prior's own draws",
            "finite numbers of shape (100,)",
            "Correct log_prob of the prior.",
        )
    return f"event_shape ({dim},), finite density at its own draws"


def _shapes(simulator: Simulator) -> str:
    for n in (5, 1):
        y = simulator.simulate(simulator.prior().sample((n,)))
        expected = (n, *simulator.spec.y_shape)
        if not isinstance(y, Tensor) or tuple(y.shape) != expected:
            found = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise Failure(
                f"{found} for {n} parameter vectors",
                f"a tensor of shape {expected}",
                "Keep the batch axis in front, also for one row (do not squeeze), and check y_shape.",
            )
    return f"(N, {', '.join(map(str, simulator.spec.y_shape))}), also for N = 1"


def _dtype_and_device(simulator: Simulator) -> str:
    for dtype in (torch.float32, torch.float64):
        theta = simulator.prior().sample((3,)).to(dtype)
        y = simulator.simulate(theta)
        if y.dtype != dtype or y.device != theta.device:
            raise Failure(
                f"y of {y.dtype} on {y.device} for theta of {dtype} on {theta.device}",
                "theta's own",
                "Make constants with dtype=theta.dtype, device=theta.device.",
            )
    return "those of theta"


def _arguments_unchanged(simulator: Simulator) -> str:
    theta = simulator.prior().sample((5,))
    before = theta.clone()
    simulator.simulate(theta)
    if not torch.equal(theta, before):
        raise Failure("that simulate() changed theta", "it to be left alone", "Do not write into theta; clone it.")
    return "theta is left alone"


def _failed_rows(simulator: Simulator, simulations: int) -> str:
    y = simulator.simulate(simulator.prior().sample((simulations,))).flatten(1)
    if torch.isinf(y).any():
        raise Failure(
            f"{int(torch.isinf(y).any(1).sum())} rows with infinite numbers", "none", "Fill a failed row with NaN."
        )
    broken = torch.isnan(y)
    partly = int((broken.any(1) & ~broken.all(1)).sum())
    if partly:
        raise Failure(f"{partly} rows that are NaN in part", "whole rows only", "Fill a failed row with NaN.")
    failed = int(broken.all(1).sum())
    if failed == simulations:
        raise Failure(f"all of {simulations} simulations failed", "some to succeed", "Check the prior and the process.")
    return f"{failed} of {simulations} simulations failed"


def _repeatable(simulator: Simulator) -> str:
    theta = simulator.prior().sample((20,))
    results = []
    for _ in range(2):
        with scope(1):
            results.append(simulator.simulate(theta))
    if not torch.equal(results[0].nan_to_num(nan=1e30), results[1].nan_to_num(nan=1e30)):
        raise Failure(
            "other measurements under the same seed",
            "the same",
            "Draw from torch's or numpy's global generators, not from one of your own or the clock.",
        )
    return "the same seed gives the same measurements"


def _global_seed(simulator: Simulator) -> str:
    theta = simulator.prior().sample((1,)).expand(64, -1)
    results, streams = [], []
    for seed in (1, 2):
        with scope(seed):
            results.append(simulator.simulate(theta))
            streams.append((torch.rand(4).tolist(), np.random.rand(4).tolist(), random.random()))  # noqa: NPY002, S311
    for name, first, second in zip(("torch", "numpy", "random"), *streams, strict=True):
        if first == second:
            raise Failure(
                f"that simulate() seeds the global generator of {name}",
                "it to draw and no more",
                "Remove the call that seeds; the caller does it.",
            )
    if not _constant(results[0]) and torch.equal(results[0].nan_to_num(), results[1].nan_to_num()):
        raise Failure(
            "the same noise under different seeds",
            "noise that follows the global seed",
            "Draw from torch's or numpy's global generators, not from one with a fixed seed.",
        )
    return "follows the global generators and does not seed them"


def _independent_rows(simulator: Simulator) -> str:
    """Batches, and calls a row at a time, must have one distribution: for a repeated theta and for various."""
    count = 256
    repeated = simulator.prior().sample((1,)).repeat(count, 1)
    various = simulator.prior().sample((count,))
    cure = (
        "Draw noise (and any random choice) of shape (N, ...), one a row, and never mix rows: no statistics over the "
        "batch, no draw of shape (1,)."
    )
    for theta, kind in ((repeated, "the same theta"), (various, "various theta")):
        batches = [simulator.simulate(theta).flatten(1) for _ in range(8 if theta is repeated else 2)]
        single = torch.cat([simulator.simulate(theta[i : i + 1]).flatten(1) for i in range(count)])
        if kind == "the same theta":
            deterministic = _constant(batches[0]) and torch.equal(batches[0].nan_to_num(), batches[1].nan_to_num())
        if deterministic:
            close = torch.isclose(batches[0], single, rtol=1e-3, atol=1e-5, equal_nan=True).all(1)
            if not close.all():
                raise Failure(
                    f"{int((~close).sum())} of {count} rows that differ between a batch and single calls",
                    "the same measurement",
                    cure,
                )
            continue
        pooled = torch.cat(batches)
        for name, first, second in (
            ("a batch and single calls", pooled, single),
            *(("one batch and another", batches[0], other) for other in batches[1:]),
        ):
            kept = [part[torch.isfinite(part).all(1)] for part in (first, second)]
            excess = largest_excess(*kept) if min(map(len, kept)) > 20 else 0.0
            if excess > 1:
                raise Failure(
                    f"that measurements for {kind} are distributed differently in {name} "
                    f"({excess:.1f} times what chance allows)",
                    "rows that are independent",
                    cure,
                )
    return "a batch is distributed as single calls are"


def _constant(y: Tensor) -> bool:
    """Whether all rows are equal, as those of a deterministic process are for one theta (up to rounding)."""
    flat = y.flatten(1)
    return bool(torch.isclose(flat, flat[:1], rtol=1e-5, atol=1e-7, equal_nan=True).all())
