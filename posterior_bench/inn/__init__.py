"""The invertible neural network (INN)."""

from .ablations import INNBackward, INNForward
from .bidirectional import INN, INNNoise
from .conditional import ConditionalINN, ConditionalINNPosterior
from .coupling import InvertibleNetwork
from .method import INNLikelihood
from .mmd import mmd2
from .model import INNModel, INNPosterior

__all__ = [
    "INN",
    "ConditionalINN",
    "ConditionalINNPosterior",
    "INNBackward",
    "INNForward",
    "INNLikelihood",
    "INNModel",
    "INNNoise",
    "INNPosterior",
    "InvertibleNetwork",
    "mmd2",
]
