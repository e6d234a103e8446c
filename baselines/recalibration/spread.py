"""How wide a posterior should be, learned from few errors of its centre.

    error_i ~ Student_nu(0, v_i + exp(2 (c + d f_i)))      maximum a posteriori in c, d and nu

f is a standardised feature, the log of the sd that the posterior to start from claims; v a known variance. A Student's
t lets one wild error be wild without widening all others. d ~ N(0, 0.5^2) and log nu ~ N(log 6, 0.5^2) hold both back
where errors are few. log N(c; log expected, 0.5^2) keeps the spread from vanishing where v alone could explain the
errors: then any sd below v's is as likely as any other, and all confidence in it would be false.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import gammaln

USUAL_DF, SCALE_SD, SLOPE_SD, LOG_DF_SD = 6.0, 0.5, 0.5, 0.5
"""Of the priors in the module's docstring."""


class Spread(NamedTuple):
    """c, d and nu of the module's docstring."""

    log_scale: float
    slope: float
    df: float

    def square(self, feature: np.ndarray) -> np.ndarray:
        """exp(2 (c + d f)), (N,), for features (N,)."""
        return np.exp(2 * (self.log_scale + self.slope * feature))


def fit_spread(error: np.ndarray, feature: np.ndarray, variance: np.ndarray, expected: float) -> Spread:
    """The most likely spread of errors (N,), with features (N,) and known variances (N,), under the priors.

    ``expected`` is the median of the prior of e^c, positive.
    """
    middle = math.log(expected)

    def loss(at: np.ndarray) -> float:
        spread = Spread(at[0], at[1], math.exp(at[2]))
        square = variance + spread.square(feature)
        z = (at[0] - middle) / SCALE_SD, at[1] / SLOPE_SD, (at[2] - math.log(USUAL_DF)) / LOG_DF_SD
        return 0.5 * sum(value**2 for value in z) - float(log_student(error, square, spread.df).sum())

    # the bounds are far out: they keep a line search from overflowing
    bounds = [(middle - 10, middle + 10), (-4.0, 4.0), (0.0, 7.0)]
    start = np.array([middle, 0.0, math.log(USUAL_DF)])
    log_scale, slope, log_df = minimize(loss, start, method="L-BFGS-B", bounds=bounds).x
    return Spread(float(log_scale), float(slope), math.exp(log_df))


def log_student(error: np.ndarray, square: np.ndarray, df: float) -> np.ndarray:
    """Log density of Student's t with squared scales ``square`` (N,) at errors (N,), in nats."""
    constant = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * math.log(df * math.pi)
    return np.asarray(constant - 0.5 * np.log(square) - 0.5 * (df + 1) * np.log1p(error**2 / (df * square)))
