"""The absorption of blood against the published table."""

from __future__ import annotations

import numpy as np
import pytest

from simulators.tissue.haemoglobin import blood_absorption, extinction

# Prahl's table at a few wavelengths: nm, HbO2, Hb (1/cm per mol/l)
PRAHL = [
    (460, 44480, 23388.8),
    (470, 33209.2, 16156.4),
    (480, 26629.2, 14550),
    (500, 20932.8, 20862),
    (510, 20035.2, 25773.6),
    (520, 24202.4, 31589.6),
    (540, 53236, 46592),
    (560, 32613.2, 53788),
    (570, 44496, 45072),
    (580, 50104, 37020),
    (600, 3200, 14677.2),
    (630, 610, 5148.8),
    (660, 319.6, 3226.56),
    (690, 276, 2051.96),
    (700, 290, 1794.28),
    (720, 348, 1325.88),
]


def test_table() -> None:
    nm, oxygenated, deoxygenated = np.array(PRAHL).T
    found = extinction(nm)
    assert found[0] == pytest.approx(oxygenated, rel=1e-12)
    assert found[1] == pytest.approx(deoxygenated, rel=1e-12)


def test_every_second_nanometre_once() -> None:
    between = np.arange(460, 720, 2) + 1.0  # linear: the mean of the neighbours, which are 2 nm apart
    for values, ends in zip(
        extinction(between), zip(extinction(between - 1), extinction(between + 1), strict=True), strict=True
    ):
        assert values == pytest.approx((ends[0] + ends[1]) / 2, rel=1e-12)
        assert (values > 0).all()


def test_isosbestic_points() -> None:
    """Where oxygenation does not change the colour of blood: 500, 529, 545, 570 and 584 nm (Prahl's table)."""
    nm = np.arange(46500, 72000) / 100
    difference = np.subtract(*extinction(nm))
    found = nm[1:][np.diff(np.sign(difference)) != 0]
    assert found == pytest.approx([500.1, 529.2, 545.3, 570.2, 584.1], abs=0.1)


def test_oxygenated_blood_is_red() -> None:
    oxygenated, deoxygenated = extinction(np.array([660.0]))
    assert deoxygenated > 8 * oxygenated


def test_blood() -> None:
    """2.303 eps x g/l / 64,500, the usual conversion: 214.6 1/cm at 580 nm for 120 g/l, and proportional to it."""
    oxygenated, _ = blood_absorption(np.array([580.0]), 120.0)
    assert oxygenated == pytest.approx(2.302585 * 50104 * 120 / 64500, rel=1e-6)
    assert blood_absorption(np.array([580.0]), 150.0)[0] == pytest.approx(1.25 * oxygenated)


def test_beyond_the_table() -> None:
    with pytest.raises(ValueError, match="covers 460 to 720 nm; found wavelengths from 450 to 580 nm"):
        extinction(np.array([450.0, 580.0]))
