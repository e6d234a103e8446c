"""Controls: posteriors that are wrong by a known amount, for tests and to show what a report would say of them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..contracts import Posterior


@dataclass(frozen=True, eq=False)
class Scaled(Posterior):
    """Draws shrunk (factor < 1) or widened (factor > 1) about their mean for each measurement.

    Shrunk ones are over-confident, widened ones under-confident. The mean is that of the draws asked for, so a single
    draw stays where it is; the scaled posterior has no density.
    """

    posterior: Posterior
    factor: float

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        draws = self.posterior.sample(y, n)
        centre = draws.mean(0)
        return centre + self.factor * (draws - centre)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """That of the posterior inside, with the factor."""
        tensors, settings = self.posterior.state()
        return tensors, {"factor": self.factor, "posterior": settings}


@dataclass(frozen=True, eq=False)
class Shifted(Posterior):
    """Draws moved by ``by_prior_sd`` times ``prior_sd`` (D,): biased. It has no density."""

    posterior: Posterior
    by_prior_sd: float
    prior_sd: Tensor

    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape)."""
        return self.posterior.sample(y, n) + self.by_prior_sd * self.prior_sd

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """That of the posterior inside, with the shift."""
        tensors, settings = self.posterior.state()
        return tensors | {"prior_sd": self.prior_sd}, {"by_prior_sd": self.by_prior_sd, "posterior": settings}
