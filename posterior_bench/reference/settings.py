"""What a reference is made with: one flat record, so that a recipe is one line of JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SOURCES = ("auto", "simulator", "engine")


@dataclass(frozen=True)
class Settings:
    """The recipe of a reference; the defaults give 1,000 draws of a posterior in five dimensions within minutes.

    Args:
        source: where draws come from: the simulator's own exact sampler, the engine, or ``"auto"``: the sampler where
            there is one that repeats no draw.
        part: measurements worked on at a time; memory grows with it.
        simulations: pairs that the flow is fitted to.
        flow_steps: of its training; 0 leaves the flow out, the first proposal is then the prior.
        flow_transforms, flow_bins, flow_width: of the neural spline flow; two hidden layers of that width.
        surrogate_simulations: simulations that a surrogate of a dear likelihood is fitted to, of a simulator with noise
            of its own for each number of y; 0 for none.
        surrogate_steps, surrogate_width: of its training; three hidden layers of that width.
        corrections: draws of the surrogate's posterior that the likelihood corrects, for each draw that is kept, and up
            to four times as many where these do not suffice.
        prior_share: of every proposal, so that no weight exceeds the likelihood's over Z by more than its inverse.
        flow_share: of the proposal once there is a mixture.
        components: of the Student t mixtures.
        pilot, most_pilot: proposals of the first round of refinement, and at most of a later one.
        refinements: rounds at most; 0 leaves the mixture out.
        efficiency: ESS a proposal at which a measurement needs no further refinement.
        pilot_k: Pareto k below which it must be besides, if given.
        proposals: of the first round of production; each further round doubles their number.
        most_proposals: for one measurement, at which production gives up.
        error: standard error of log Z in nats, at which production may stop.
        particles, repetitions: of tempered SMC; 0 repetitions leave route two out.
        ladder: the effective share of the particles after each step of temperature.
        moves: Metropolis steps of all particles at each temperature.
        second_route: measurements that route two checks, the first ones; ``None`` for all.
        rank_measurements: pseudo-truths for the rank statistics, where the caller's are too few or not known.
        rank_draws: of each of them.
    """

    source: Literal["auto", "simulator", "engine"] = "auto"
    part: int = 10
    simulations: int = 50_000
    flow_steps: int = 5000
    flow_transforms: int = 3
    flow_bins: int = 8
    flow_width: int = 64
    surrogate_simulations: int = 0
    surrogate_steps: int = 12_000
    surrogate_width: int = 192
    corrections: int = 15
    prior_share: float = 0.1
    flow_share: float = 0.1
    components: int = 48
    pilot: int = 4000
    most_pilot: int = 32_000
    refinements: int = 10
    efficiency: float = 0.3
    pilot_k: float | None = None
    proposals: int = 40_000
    most_proposals: int = 1_280_000
    error: float = 0.004
    particles: int = 2000
    repetitions: int = 4
    ladder: float = 0.5
    moves: int = 8
    second_route: int | None = None
    rank_measurements: int = 100
    rank_draws: int = 100

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ValueError(f"source is {self.source!r}; expected one of {', '.join(SOURCES)}")
        if not 0 < self.prior_share < 1 or not 0 <= self.flow_share < 1 - self.prior_share:
            raise ValueError(
                f"prior_share is {self.prior_share} and flow_share {self.flow_share}; expected a positive share of the "
                "prior and less than 1 in all, so that a share is left for the mixture"
            )
        if not 0 < self.ladder < 1:
            raise ValueError(f"ladder is {self.ladder}; expected a share of the particles between 0 and 1")
        for name in ("part", "components", "pilot", "proposals", "most_proposals", "particles", "corrections"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.repetitions == 1:
            raise ValueError("repetitions is 1; expected at least 2, from which a standard error can be told, or 0")
