"""Conformance checks that anyone can run on a plug-in before trusting a number that it makes.

>>> from posterior_bench.checks import LinearGaussian, check_simulator
>>> [finding.name for finding in check_simulator(LinearGaussian()) if not finding.ok]
[]
"""

from .findings import Finding
from .gaussian import LinearGaussian
from .method import check_method
from .metric import check_metric
from .plugin import check_plugin
from .simulator import check_simulator

__all__ = ["Finding", "LinearGaussian", "check_method", "check_metric", "check_plugin", "check_simulator"]
