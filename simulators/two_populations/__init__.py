"""Two populations of which one lives on the other: an epidemic, and predators with their prey."""

from .epidemic import Epidemic
from .lotka_volterra import LotkaVolterra

__all__ = ["Epidemic", "LotkaVolterra"]
