"""Reference posteriors that prove themselves: draws and the normalising constant, by two routes."""

from .acceptance import CRITERIA, Check, Criterion, accepted
from .engine import Reference, build_reference, log_posterior, make_reference, simulate_pairs
from .recipe import Recipe, settings_of
from .settings import Settings
from .storage import read_reference, reference_folder, write_reference

__all__ = [
    "CRITERIA",
    "Check",
    "Criterion",
    "Recipe",
    "Reference",
    "Settings",
    "accepted",
    "build_reference",
    "log_posterior",
    "make_reference",
    "read_reference",
    "reference_folder",
    "settings_of",
    "simulate_pairs",
    "write_reference",
]
