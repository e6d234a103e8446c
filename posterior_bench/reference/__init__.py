"""Reference posteriors that prove themselves: draws and the normalising constant, by two routes."""

from .acceptance import CRITERIA, Check, Criterion, accepted
from .engine import Reference, build_reference, log_posterior, make_reference, simulate_pairs
from .settings import Settings
from .storage import read_reference, reference_folder, write_reference

__all__ = [
    "CRITERIA",
    "Check",
    "Criterion",
    "Reference",
    "Settings",
    "accepted",
    "build_reference",
    "log_posterior",
    "make_reference",
    "read_reference",
    "reference_folder",
    "simulate_pairs",
    "write_reference",
]
