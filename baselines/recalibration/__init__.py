"""Another method's posterior, corrected by a few measurements whose parameters are known."""

from .affine import RecalibratedAffine
from .conformal import RecalibratedConformal
from .gaussian_process import RecalibratedGP
from .temperature import RecalibratedTemperature

__all__ = ["RecalibratedAffine", "RecalibratedConformal", "RecalibratedGP", "RecalibratedTemperature"]
