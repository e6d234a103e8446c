"""What every use of sbi needs: its import, its silence, a prior as it wants one, and its networks' way back from disk.

Tejero-Cantero et al. 2020, Journal of Open Source Software 5(52):2505; Boelts et al. 2025, JOSS 10(108):7754.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.types import _size

from posterior_bench.priors import in_support

Builder = Callable[[Tensor, Tensor], nn.Module]
"""``builder(theta, y)`` makes an untrained network of sbi that fits, and is standardised on, this batch."""

EXPECTED = (
    r"Maximum number of epochs",  # training is bounded on purpose; the loss curves show where it ended
    r"Data has extreme outliers",  # advice on the simulator's own distribution, which is not ours to change
    r".*of samples drawn with reject_outside_prior",  # they are counted, see ``leakage``
    r"torch.triangular_solve is deprecated",  # of nflows, whose flows sbi uses
)
"""Warnings of sbi that say nothing new; all others are let through."""


def load() -> None:
    """Import sbi, and put back what that changes for the whole process: torch's checks of distribution arguments."""
    checks = Distribution._validate_args
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the packages that sbi imports
            import sbi.inference  # noqa: F401 - this is the import
    finally:
        Distribution.set_default_validate_args(checks)


@contextmanager
def quiet() -> Iterator[None]:
    """Run a block of sbi as its users do, without argument checks, but with nothing printed or left behind."""
    load()
    checks = Distribution._validate_args
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            for message in EXPECTED:
                warnings.filterwarnings("ignore", message=message)
            Distribution.set_default_validate_args(False)
            yield
    finally:
        Distribution.set_default_validate_args(checks)


class NoTracker:
    """Takes what sbi would write to files of TensorBoard in the working directory, and drops it."""

    log_dir: str | None = None

    def log_metric(self, name: str, value: float, step: int | None = None) -> None:
        """Drop a number."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Drop numbers."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Drop settings."""

    def add_figure(self, name: str, figure: object, step: int | None = None) -> None:
        """Drop a figure."""

    def flush(self) -> None:
        """Nothing waits."""


class SbiPrior(Distribution):
    """A prior with a density everywhere, -inf outside its support, and draws in single precision, as sbi wants it.

    Args:
        prior: batch_shape () and event_shape (D,); it may raise, or give any number, outside its support.
    """

    arg_constraints = {}  # noqa: RUF012 - torch's own form

    def __init__(self, prior: Distribution) -> None:
        self.prior = prior
        self.anchor = prior.sample()
        super().__init__(torch.Size(), prior.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint | None:
        """That of the prior."""
        return self.prior.support

    @property
    def mean(self) -> Tensor:
        """(D,), where the prior knows it."""
        return self.prior.mean

    @property
    def variance(self) -> Tensor:
        """(D,), where the prior knows it."""
        return self.prior.variance

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008 - torch's own default
        """Draws (*sample_shape, D)."""
        return self.prior.sample(torch.Size(sample_shape)).float()

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(theta), (...,), in nats, for theta (..., D)."""
        inside = in_support(self.prior, value)
        safe = torch.where(inside.unsqueeze(-1), value, self.anchor.to(value))
        return torch.where(inside, self.prior.log_prob(safe), -math.inf).to(value.dtype)


def varying(y: Tensor) -> Tensor:
    """Columns, (K,), of y (N, *y_shape), flattened, that are not constant: sbi divides by their standard deviation.

    Raises:
        ValueError: where none varies, or there are fewer than 20 rows.
    """
    if len(y) < 20:
        raise ValueError(f"{len(y)} valid simulations are too few to train on; expected at least 20: raise the budget")
    flat = y.flatten(1)
    columns = (flat.std(0) > 1e-6 * flat.mean(0).abs()).nonzero()[:, 0]  # rounding leaves an sd of about 1e-7 |mean|
    if len(columns) == 0:
        raise ValueError("every measurement is the same; expected simulations that differ: check the simulator")
    return columns


def rebuild(builder: Builder, tensors: Mapping[str, Tensor], theta_dim: int) -> tuple[nn.Module, Tensor]:
    """The network and the columns of y that it sees, from the ``state`` of a posterior.

    The builder makes a network of the right shape from any batch; weights, permutations and the means and standard
    deviations that it read off that batch are then overwritten. Takes nothing from the caller's generator.
    """
    columns = tensors["columns"]
    with quiet(), torch.random.fork_rng():
        batch = torch.randn(8, theta_dim, device=columns.device), torch.randn(8, len(columns), device=columns.device)
        network = builder(*batch)
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    return frozen(network.to(columns.device)), columns


def frozen(network: nn.Module) -> nn.Module:
    """The network, to be used and not trained any more."""
    return network.eval().requires_grad_(False)
