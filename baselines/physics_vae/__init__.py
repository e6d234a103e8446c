"""Inference where the physics is incomplete: the physics-integrated variational autoencoder."""

from .method import PhysicsVAE, PhysicsVAEProper
from .posterior import PhysicsVAEPosterior

__all__ = ["PhysicsVAE", "PhysicsVAEPosterior", "PhysicsVAEProper"]
