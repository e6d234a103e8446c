"""The invertible neural network (INN)."""

from .coupling import AffineCoupling, InvertibleNetwork
from .method import INN, INNLikelihood, INNModel, INNPosterior
from .mmd import mmd2

__all__ = ["INN", "AffineCoupling", "INNLikelihood", "INNModel", "INNPosterior", "InvertibleNetwork", "mmd2"]
