"""The way to ArviZ, and the only file that touches it. Works with ArviZ 0.x (InferenceData) and 1.x (DataTree)."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..records import Parameter

_TAKEN = frozenset({"chain", "draw", "measurement", "y_name"})
"""Names of dimensions, which no parameter can have in a data set."""


def to_arviz(
    theta: Tensor,
    parameters: Sequence[Parameter],
    y: Tensor,
    prior: Tensor | None = None,
    truth: Tensor | None = None,
    y_names: Sequence[str] = (),
    measurements: Sequence[int] | None = None,
) -> Any:
    """Posterior draws as ArviZ keeps them: one variable a parameter, with its unit as an attribute.

    Args:
        theta: (n, B, D), draws of the posterior for B measurements.
        parameters: D records, in the order of theta's last axis.
        y: (B, *y_shape), the measurements.
        prior: (P, D), draws of the prior.
        truth: (B, D), the parameters behind the measurements.
        y_names: a name for each number of a measurement.
        measurements: B numbers that name the measurements; by default 0 to B - 1.

    Returns:
        ``arviz.InferenceData`` (0.x) or ``xarray.DataTree`` (1.x) with the groups ``posterior`` (chain, draw,
        measurement), ``prior`` (chain, draw), ``observed_data`` and ``constant_data`` (the truth).

    Raises:
        ValueError: where shapes do not fit each other, or a parameter has the name of a dimension.
    """
    groups = datasets(theta, parameters, y, prior, truth, y_names, measurements)
    arviz = _arviz()
    if "data" not in inspect.signature(arviz.from_dict).parameters:  # 1.x keeps the name InferenceData for a DataTree
        return arviz.InferenceData(**groups)
    import xarray

    return xarray.DataTree.from_dict(groups)


def datasets(
    theta: Tensor,
    parameters: Sequence[Parameter],
    y: Tensor,
    prior: Tensor | None = None,
    truth: Tensor | None = None,
    y_names: Sequence[str] = (),
    measurements: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The groups of ``to_arviz`` as ``xarray.Dataset``, by name. Arguments as there."""
    import xarray

    if theta.ndim != 3 or theta.shape[1] != len(y) or theta.shape[2] != len(parameters):
        raise ValueError(
            f"theta has shape {tuple(theta.shape)}; expected (draws, {len(y)} measurements, {len(parameters)} "
            "parameters): draws lead the batch, also for one measurement"
        )
    clash = sorted(_TAKEN & {p.name for p in parameters})
    if clash:
        raise ValueError(f"parameter {clash[0]!r} has the name of a dimension in ArviZ; give it another name")
    size = y[0].numel()
    if y_names and len(y_names) != size:
        raise ValueError(f"there are {len(y_names)} y_names and {size} numbers in a measurement; expected one each")
    index = np.arange(len(y)) if measurements is None else np.asarray(measurements)
    coords: dict[str, Any] = {"measurement": index}

    def variables(values: Tensor, dims: tuple[str, ...]) -> dict[str, Any]:
        table = values.detach().cpu().numpy()
        return {p.name: (dims, table[..., i], _attributes(p)) for i, p in enumerate(parameters)}

    sampled = ("chain", "draw", "measurement")
    groups = {
        "posterior": xarray.Dataset(
            variables(theta.unsqueeze(0), sampled), coords | {"chain": [0], "draw": np.arange(len(theta))}
        )
    }
    if prior is not None:
        groups["prior"] = xarray.Dataset(
            variables(prior.unsqueeze(0), sampled[:2]), {"chain": [0], "draw": np.arange(len(prior))}
        )
    flat = y.detach().cpu().flatten(1).numpy()
    names = list(y_names) or [str(i) for i in range(size)]
    groups["observed_data"] = xarray.Dataset({"y": (("measurement", "y_name"), flat)}, coords | {"y_name": names})
    if truth is not None:
        groups["constant_data"] = xarray.Dataset(variables(truth, ("measurement",)), coords)
    return groups


def density_curve(
    values: Tensor, bounds: tuple[float | None, float | None] = (None, None), points: int = 128
) -> tuple[np.ndarray, np.ndarray] | None:
    """ArviZ's kernel density estimate of a sample, which does not leak over the bounds of its support.

    Args:
        values: (n,).
        bounds: lower and upper bound of the support, ``None`` where there is none.
        points: of the grid.

    Returns:
        Grid and density, each (points,), or ``None`` where all values are one.
    """
    sample = values.detach().double().cpu().numpy()
    spread = float(np.ptp(sample))
    if not np.isfinite(spread) or spread <= 1e-9 * max(1.0, float(np.abs(sample).max())):
        return None
    # the estimate is mirrored at the ends of its grid: they must lie at a bound, or where there is no density left
    tail = 1.5 * float(sample.std())
    low, high = float(sample.min()), float(sample.max())
    lower, upper = low - tail, high + tail
    if bounds[0] is not None:
        lower = max(lower, min(low, bounds[0]))
    if bounds[1] is not None:
        upper = min(upper, max(high, bounds[1]))
    grid, density = _arviz().kde(sample, custom_lims=(lower, upper), grid_len=points)[:2]
    return np.asarray(grid), np.asarray(density)


def _attributes(parameter: Parameter) -> Mapping[str, str]:
    found = {"units": parameter.unit or "1", "long_name": parameter.name}
    return found | ({"symbol": parameter.symbol} if parameter.symbol else {})


def _arviz() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # 0.23 announces 1.0 whenever it is imported
        import arviz

    return arviz
