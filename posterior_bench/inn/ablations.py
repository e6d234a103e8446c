"""The INN with one direction of its training left out: what each loss alone does.

    inn_ly_lz:   w_y L_y + w_z L_z - mean log q(u | y)        forwards only
    inn_lx:      L_x                                          backwards only

The losses are those of ``losses``; both rows of the comparison in Ardizzone et al. 2018, arXiv 1808.04730. Without L_x
the forward process is fitted and theta given y is right as far as z comes out independent of u. L_x alone sees
the marginal of theta: every y may be answered by the prior.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posterior_bench import MethodSpec

from .bidirectional import backward_terms, forward_terms
from .method import InvertibleMethod
from .model import INNModel

REFERENCE = "Ardizzone et al. 2018, arXiv:1808.04730"


@dataclass(frozen=True)
class INNForward(InvertibleMethod):
    """The INN trained forwards only. q(u | y), of which L_y and L_z tell nothing, is fitted to f's own u.

    Nothing looks at backward passes: f squeezes its pads to predict u, and its inverse can throw a few draws hundreds
    of prior standard deviations out, the more the larger ``clamp``.

    Args:
        weight_y: of L_y.
        weight_z: of L_z.
        bandwidths: h of the inverse multiquadratic kernels of L_z, per dimension.
    """

    weight_y: float = 0.1
    weight_z: float = 5.0
    bandwidths: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)

    spec: ClassVar[MethodSpec] = MethodSpec("inn_ly_lz", 1, REFERENCE, label="INN, L_y + L_z only")

    def _losses(self, model: INNModel, inputs: Tensor, y: Tensor, fraction: float) -> Iterator[tuple[str, Tensor]]:
        return forward_terms(model, inputs, y, self.weight_y, self.weight_z, self.bandwidths, fit_noise=True)

    def _settle(self) -> float:
        return 0.0


@dataclass(frozen=True)
class INNBackward(InvertibleMethod):
    """The INN trained backwards only, by L_x, which does not look at which y a theta belongs to.

    Args:
        bandwidths: h of the inverse multiquadratic kernels of L_x, per dimension, in units of mapped theta.
    """

    bandwidths: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)

    spec: ClassVar[MethodSpec] = MethodSpec("inn_lx", 1, REFERENCE, label="INN, L_x only")

    def _losses(self, model: INNModel, inputs: Tensor, y: Tensor, fraction: float) -> Iterator[tuple[str, Tensor]]:
        return backward_terms(model, inputs, y, 1.0, self.bandwidths)

    def _settle(self) -> float:
        return 0.0
