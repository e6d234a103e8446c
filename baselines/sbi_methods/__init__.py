"""Methods of the library sbi behind this package's contract. sbi itself is imported on first use.

sbi standardises theta and y itself, and its networks put some mass outside the prior's support. Its own posteriors draw
again what falls there; here draws are the network's unless ``reject`` is set, so that the leak is counted.
"""

from .amortised import FMPE, NLE, NPE, NPSE, NRE
from .corrected import NPEImportance
from .sequential import SMCABC, SNPE

__all__ = ["FMPE", "NLE", "NPE", "NPSE", "NRE", "SMCABC", "SNPE", "NPEImportance"]
