"""The invertible neural network (INN)."""

from .ablations import INNBackward, INNForward
from .conditional import ConditionalINN, ConditionalINNPosterior
from .coupling import AffineCoupling, InvertibleNetwork
from .method import INN, INNLikelihood, INNModel, INNPosterior
from .mmd import mmd2

__all__ = [
    "INN",
    "AffineCoupling",
    "ConditionalINN",
    "ConditionalINNPosterior",
    "INNBackward",
    "INNForward",
    "INNLikelihood",
    "INNModel",
    "INNPosterior",
    "InvertibleNetwork",
    "mmd2",
]
