"""Oxygenation and structure of tissue from the colours that it reflects."""

from .model import Tissue

__all__ = ["Tissue"]
