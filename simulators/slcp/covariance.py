"""The covariance S of the four points: s1 = theta3^2, s2 = theta4^2, rho = tanh theta5.

S = [[s1^2, rho s1 s2], [rho s1 s2, s2^2]] + 1e-6 I
"""

from __future__ import annotations

from torch import Tensor

BOUND = 3.0
"""Every parameter lies within this of zero."""

POINTS = 4
JITTER = 1e-6


def determinant(third: Tensor, fourth: Tensor, fifth: Tensor) -> Tensor:
    """|S| for theta3, theta4 and theta5 of shapes that broadcast."""
    first, second = third**2, fourth**2
    # 1 - tanh^2 = 1 / cosh^2: written so that nothing cancels
    return (first * second / fifth.cosh()) ** 2 + JITTER * (first**2 + second**2) + JITTER**2


def cholesky(third: Tensor, fourth: Tensor, fifth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The entries (1, 1), (2, 1) and (2, 2) of the lower triangular root of S."""
    first, second = third**2, fourth**2
    variance = first**2 + JITTER
    corner = variance.sqrt()
    return corner, fifth.tanh() * first * second / corner, (determinant(third, fourth, fifth) / variance).sqrt()
