"""Simple likelihood, complex posterior: four points of the plane, alone and among distractors."""

from .model import SLCP, SLCPDistractors, distractor_mixture

__all__ = ["SLCP", "SLCPDistractors", "distractor_mixture"]
