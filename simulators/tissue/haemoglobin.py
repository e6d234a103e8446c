"""How strongly blood absorbs: the extinction of haemoglobin with and without oxygen."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from math import log

import numpy as np

MOLAR_MASS = 64_500.0
"""Of haemoglobin, in g/mol (the value that belongs to Prahl's table)."""


@cache
def _table() -> np.ndarray:
    """(131, 3): wavelength in nm, extinction of oxyhaemoglobin and of deoxyhaemoglobin in 1/cm per mol/l."""
    with files(__package__).joinpath("haemoglobin.csv").open(encoding="utf-8") as file:
        return np.loadtxt(file, delimiter=",", comments="#")


def extinction(wavelength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Molar extinction of oxyhaemoglobin and of deoxyhaemoglobin, linear between the 2 nm of Prahl's table.

    Args:
        wavelength: in nm, of any shape, between 460 and 720.

    Returns:
        Both in 1/cm per mol/l, decadic, shaped like ``wavelength``.

    >>> extinction(np.array([580.0]))
    (array([50104.]), array([37020.]))
    """
    nm, oxygenated, deoxygenated = _table().T
    if np.min(wavelength) < nm[0] or np.max(wavelength) > nm[-1]:
        raise ValueError(
            f"the haemoglobin table covers {nm[0]:g} to {nm[-1]:g} nm; "
            f"found wavelengths from {np.min(wavelength):g} to {np.max(wavelength):g} nm"
        )
    return np.interp(wavelength, nm, oxygenated), np.interp(wavelength, nm, deoxygenated)


def blood_absorption(wavelength: np.ndarray, haemoglobin_g_per_l: float) -> tuple[np.ndarray, np.ndarray]:
    """Absorption coefficients of whole blood, in 1/cm, fully oxygenated and without oxygen, like ``wavelength``.

    mu_a = ln(10) c epsilon / (64,500 g/mol), with c the haemoglobin in a litre of blood (Jacques 2013, Optical
    properties of biological tissues: a review, Phys. Med. Biol. 58:R37).
    """
    oxygenated, deoxygenated = extinction(wavelength)
    factor = log(10) * haemoglobin_g_per_l / MOLAR_MASS
    return factor * oxygenated, factor * deoxygenated
