"""What every test shares."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors are many times slower on two threads than on one."""
    torch.set_num_threads(1)
