"""Which Bayesian inference method can be trusted on your simulator, and at what cost?"""

from .contracts import (
    Differentiable,
    HasDynamics,
    HasLandmarks,
    HasLatent,
    HasLikelihood,
    HasLogProb,
    HasNoise,
    HasPicture,
    HasReference,
    HasReferenceDensity,
    HasSignals,
    HasTrajectory,
    Method,
    Metric,
    Posterior,
    Progress,
    Simulator,
)
from .problem import Problem
from .records import Draws, MethodSpec, Need, Parameter, Row, Score, Simulations, Spec, Task, Truth

__version__ = "0.1.0"

__all__ = [
    "Differentiable",
    "Draws",
    "HasDynamics",
    "HasLandmarks",
    "HasLatent",
    "HasLikelihood",
    "HasLogProb",
    "HasNoise",
    "HasPicture",
    "HasReference",
    "HasReferenceDensity",
    "HasSignals",
    "HasTrajectory",
    "Method",
    "MethodSpec",
    "Metric",
    "Need",
    "Parameter",
    "Posterior",
    "Problem",
    "Progress",
    "Row",
    "Score",
    "Simulations",
    "Simulator",
    "Spec",
    "Task",
    "Truth",
]
