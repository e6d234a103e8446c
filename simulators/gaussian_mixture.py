"""Eight Gaussians on an octagon: which point of the plane lies behind a label that several modes may share?

theta in the plane is drawn from p(theta) = 1/8 sum_k N(theta; c_k, sd^2 I). The centres c_k = (+-1, +-(1 + sqrt 2)) and
(+-(1 + sqrt 2), +-1) are the corners of a regular octagon of side 2, and sd = 0.2. y is the one-hot label of the mode:

    p(mode k | theta) = N(theta; c_k, sd^2 I) / sum_j N(theta; c_j, sd^2 I) = softmax_k(theta . c_k / sd^2)
    p(y = one-hot of l | theta) = sum of p(mode k | theta) over the modes k of label l

(the softmax because all centres have one norm). The pair (theta, y) is distributed as if the mode were drawn first,
then theta from it, then the label read off; hence p(theta | y) is the equal mixture of the modes with that label. Side
by side, centres are ten sd apart: at sd = 0.2, y is all but a function of theta, and says nothing of theta's place
within a mode.

Labels of the modes 0..7, clockwise from the upper left: ``all`` 0 1 2 3 4 5 6 7, ``some`` 0 0 0 0 1 1 2 3, ``none``
0 0 0 0 0 0 0 0. With ``none`` y is constant: it informs of nothing, and the posterior is the prior.

The problem is that of Ardizzone et al. 2019 (arXiv:1808.04730); order of the modes and labels as in the authors' public
code (https://github.com/vislearn/analyzing_inverse_problems, toy_8-modes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal
from torch.nn.functional import one_hot

from posterior_bench import (
    HasLandmarks,
    HasLikelihood,
    HasNoise,
    HasPicture,
    HasReference,
    Parameter,
    Simulator,
    Spec,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAR = 1 + math.sqrt(2)
CENTRES = ((-FAR, 1.0), (-1.0, FAR), (1.0, FAR), (FAR, 1.0), (FAR, -1.0), (1.0, -FAR), (-1.0, -FAR), (-FAR, -1.0))
"""Neighbours follow each other. All have the norm sqrt(4 + 2 sqrt 2), which the softmax above rests on."""

MODES = len(CENTRES)

LABELS = {"all": tuple(range(MODES)), "some": (0, 0, 0, 0, 1, 1, 2, 3), "none": (0,) * MODES}


@dataclass(frozen=True)
class GaussianMixture(Simulator, HasLikelihood, HasNoise, HasReference, HasPicture, HasLandmarks):
    """A point of the plane and the label of its mode; see the module's docstring for formulas and sources.

    Args:
        labels: which modes have a label of their own: ``"all"``, ``"some"`` or ``"none"``.
        sd: standard deviation of each mode along each axis. The posterior is exact for any.

    Raises:
        ValueError: on other ``labels``, or an sd that is not positive and finite.
    """

    labels: str = "some"
    sd: float = 0.2

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise ValueError(f"found labels {self.labels!r}; expected one of {', '.join(map(repr, LABELS))}")
        if not 0 < self.sd < math.inf:
            raise ValueError(f"found sd {self.sd}; expected a positive number: the spread of a mode")

    @property
    def spec(self) -> Spec:
        """Two parameters without a unit; eight numbers a measurement, of which those of labels not in use are 0."""
        return Spec(
            name="gaussian_mixture",
            version=1,
            reference="Ardizzone et al. 2019, arXiv:1808.04730",
            parameters=(Parameter("first", symbol=r"\theta_1"), Parameter("second", symbol=r"\theta_2")),
            y_shape=(MODES,),
            y_names=tuple(f"label_{label}" for label in range(MODES)),
            description="Where in the plane a point lies, given the label of its mode, one of eight on an octagon",
        )

    def prior(self) -> Distribution:
        """The equal mixture of the eight modes."""
        modes = Independent(Normal(torch.tensor(CENTRES), self.sd), 1)
        return MixtureSameFamily(Categorical(torch.ones(MODES)), modes)

    @property
    def landmarks(self) -> Tensor:
        """The centres of the modes, (8, 2)."""
        return torch.tensor(CENTRES)

    @property
    def noise_dim(self) -> int:
        """1: what picks the mode."""
        return 1

    def simulate(self, theta: Tensor) -> Tensor:
        """One-hot labels (N, 8) for theta (N, 2)."""
        return self.simulate_from(theta, torch.randn(len(theta), 1, dtype=theta.dtype, device=theta.device))

    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        """One-hot labels (N, 8) for theta (N, 2) and noise (N, 1).

        The mode is the first whose cumulative probability exceeds Phi(noise). A row whose theta is not finite fails.
        """
        cumulative = self._log_responsibilities(theta).exp().cumsum(1)
        cumulative = cumulative / cumulative[:, -1:]  # ends at 1, which no u below reaches
        u = torch.special.log_ndtr(noise.double()).exp().clamp(max=1 - torch.finfo(torch.double).eps)
        mode = (cumulative <= u).sum(1)
        y = one_hot(self._label_of_mode(theta.device)[mode], MODES).to(theta.dtype)
        return torch.where(torch.isfinite(theta).all(1, keepdim=True), y, torch.nan)

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(y | theta), (N,), for theta (N, 2) and y (N, 8), in nats: the logarithm of a probability, at most 0.

        It is -inf where y is not the one-hot vector of a label in use, since no theta gives such a y.
        """
        label, known = self._label_of(y)
        of_label = self._label_of_mode(y.device) == label[:, None]
        log_modes = self._log_responsibilities(theta)
        total = torch.where(of_label, log_modes, -torch.inf).logsumexp(1)
        return torch.where(known, total, -torch.inf).clamp(max=0).to(theta.dtype)

    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        """Exact draws (n, B, 2) for measurements y (B, 8): a mode of the label at random, then a point of it.

        Raises:
            ValueError: where a measurement is not the one-hot vector of a label in use, so that it has no posterior.
        """
        of_label = self._modes_behind(y)
        mode = torch.multinomial(of_label.to(y.dtype), n, replacement=True).T
        centres = torch.tensor(CENTRES, dtype=y.dtype, device=y.device)[mode]
        return centres + self.sd * torch.randn_like(centres)

    def picture(self, axes: Axes, theta: Tensor, y: Tensor) -> None:
        """Draw the points theta (n, 2) over the modes as circles of 2 sd, those of the label y (8,) filled."""
        from matplotlib.patches import Circle

        behind = self._modes_behind(y.detach().cpu()[None])[0].tolist()
        for k, (centre, filled) in enumerate(zip(CENTRES, behind, strict=True)):
            face, edge, name = ("0.8", "0.2", "mode of the label") if filled else ("none", "0.7", "other mode")
            circle = Circle(centre, 2 * self.sd, facecolor=face, edgecolor=edge, linewidth=1)
            if filled not in behind[:k]:  # one entry of the legend a kind
                circle.set_label(f"{name} (2 sd)")
            axes.add_patch(circle)
        points = theta.detach().cpu()[:2000].numpy()
        axes.plot(
            points[:, 0],
            points[:, 1],
            color="tab:blue",
            linestyle="",
            marker="o",
            markersize=2.5,
            markeredgewidth=0,
            alpha=0.6,
            label="draw",
            rasterized=True,
        )
        axes.set_aspect("equal")
        first, second = self.spec.parameters
        axes.set_xlabel(f"{first.label} [plane units]")
        axes.set_ylabel(f"{second.label} [plane units]")
        axes.legend(loc="center", frameon=False, fontsize="small")

    def _label_of_mode(self, device: torch.device) -> Tensor:
        return torch.tensor(LABELS[self.labels], device=device)

    def _log_responsibilities(self, theta: Tensor) -> Tensor:
        """log p(mode | theta), (N, 8), in double precision."""
        centres = torch.tensor(CENTRES, dtype=torch.double, device=theta.device)
        return (theta.double() @ centres.T / self.sd**2).log_softmax(1)

    def _label_of(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The label (B,) of each y (B, 8), and whether y is the one-hot vector of a label in use (B,)."""
        label = y.nan_to_num().argmax(1)
        used = torch.isin(label, self._label_of_mode(y.device))
        return label, used & (y == one_hot(label, MODES)).all(1)

    def _modes_behind(self, y: Tensor) -> Tensor:
        """Which modes have the label of each y (B, 8): (B, 8), bool. Raises ``ValueError`` where y has none."""
        label, known = self._label_of(y)
        if not known.all():
            first = int((~known).nonzero()[0, 0])
            used = sorted(set(LABELS[self.labels]))
            raise ValueError(
                f"measurement {first} is {y[first].tolist()}, which is no label of this mixture: expected a "
                f"single 1 at one of the places {used}, counted from 0, and 0 elsewhere. It comes from another "
                f"simulator, or from one whose labels are not {self.labels!r}, or it was standardised"
            )
        return self._label_of_mode(y.device) == label[:, None]
