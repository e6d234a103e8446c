"""A forced, damped pendulum of which gravity alone is known."""

from .model import PROCESSES, Pendulum, Population

__all__ = ["PROCESSES", "Pendulum", "Population"]
