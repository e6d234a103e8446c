"""Methods whose posteriors are functions of a latent vector, loaded as a user's file is: a good one, a broken one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from toys import Linear, Regression

from posterior_bench import HasLatent, MethodSpec, Posterior, Problem


class LatentLinear(Linear, HasLatent):
    """The same as a function of z: theta = slope * y + sd * z."""

    @property
    def latent_dim(self) -> int:
        return len(self.sd)

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        return self.slope * y + self.sd * z


class NoWayBack(LatentLinear):
    """A posterior whose decoder raises."""

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("no way back")


@dataclass(frozen=True)
class WithLatent(Regression):
    """A method whose posterior has a latent vector."""

    spec: ClassVar[MethodSpec] = MethodSpec("with_latent", 1, "nowhere")

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        return LatentLinear(tensors["slope"], tensors["sd"])


@dataclass(frozen=True)
class BrokenLatent(Regression):
    """A method whose posterior promises a latent vector that it cannot decode."""

    spec: ClassVar[MethodSpec] = MethodSpec("broken_latent", 1, "nowhere")

    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        return NoWayBack(tensors["slope"], tensors["sd"])
