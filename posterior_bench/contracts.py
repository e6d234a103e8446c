"""What a simulator, a method, a posterior and a metric must offer. Everything else builds on these."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import Tensor
from torch.distributions import Distribution

from .records import Draws, MethodSpec, Score, Simulations, Spec, Truth

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .problem import Problem


class Simulator(ABC):
    """A prior p(theta) and a forward process y = s(theta, noise).

    A simulator is a frozen dataclass of its options, every one with a default. It draws from torch's and numpy's
    global generators, takes no seed, and makes nothing on import or in ``__init__``. Rows are independent: row i
    depends on theta[i] and its own noise. A simulation that fails is a row of NaN.
    """

    @property
    @abstractmethod
    def spec(self) -> Spec:
        """Name, version, reference, parameters and shape of a measurement, for these options."""

    @abstractmethod
    def prior(self) -> Distribution:
        """p(theta), with batch_shape () and event_shape (D,)."""

    @abstractmethod
    def simulate(self, theta: Tensor) -> Tensor:
        """Measurements (N, *y_shape) for parameters theta (N, D), on theta's device and in its dtype."""


class HasLikelihood(ABC):
    """A simulator with a known density of y."""

    @abstractmethod
    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(y | theta), (N,), for theta (N, D) and y (N, *y_shape), in nats."""


class HasNoise(ABC):
    """A simulator that is a deterministic function of theta and standard normal noise."""

    @property
    @abstractmethod
    def noise_dim(self) -> int:
        """Number of noise variables of one simulation; 0 for a deterministic process."""

    @abstractmethod
    def simulate_from(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Measurements (N, *y_shape) for theta (N, D) and noise (N, noise_dim), noise ~ N(0, I)."""


class HasReference(ABC):
    """A simulator whose posterior can be sampled exactly, or as exactly as the stated error."""

    @abstractmethod
    def sample_reference(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) of p(theta | y) for measurements y (B, *y_shape)."""


class HasReferenceDensity(HasReference):
    """A simulator whose posterior density is known too, its constant included: then regret can be told in nats."""

    @abstractmethod
    def log_reference(self, theta: Tensor, y: Tensor) -> Tensor:
        """log p(theta | y), normalised, (n, B), in nats, for theta (n, B, D) and y (B, *y_shape); -inf where none."""


class Differentiable(ABC):  # noqa: B024 - a marker: it promises, it has nothing to implement
    """A simulator through whose ``simulate_from`` or ``log_likelihood`` gradients flow."""


class HasDynamics(Differentiable):
    """d state / dt = derivative(theta, state, t), measured at ``steps`` times; a method may add to correctable rows."""

    state_dim: int
    correctable: tuple[bool, ...]
    steps: int

    @abstractmethod
    def derivative(self, theta: Tensor, state: Tensor, time: float) -> Tensor:
        """The known physics, (N, S), at theta (N, D) and states (N, S)."""

    @abstractmethod
    def initial_state(self, y: Tensor) -> Tensor:
        """The state (N, S) from which measurements y (N, *y_shape) begin."""

    @abstractmethod
    def observe(self, states: Tensor) -> Tensor:
        """What is measured of states (N, T, S), without noise: (N, *y_shape) with T in place of ``steps``."""

    @abstractmethod
    def solve(self, derivative: Callable[[Tensor, float], Tensor], initial: Tensor, steps: int) -> Tensor:
        """States (N, steps, S) of d state / dt = derivative(state, t) from ``initial`` (N, S)."""


class HasTrajectory(HasNoise):
    """A simulator whose measurement is a signal over time, plus noise, that goes on beyond the measured times."""

    @abstractmethod
    def signal(self, theta: Tensor, noise: Tensor, steps: int) -> Tensor:
        """Signals without noise, (N, *y_shape with ``steps`` times last), for theta (N, D) and noise (N, noise_dim).

        What of the noise is no measurement noise, such as nuisances and initial states, acts as it does in
        ``simulate_from``; at the measured times y is the signal plus noise.
        """


class HasPicture(ABC):
    """A simulator that can draw what its parameters look like, for the report."""

    @abstractmethod
    def picture(self, axes: Axes, theta: Tensor, y: Tensor) -> None:
        """Draw the configurations theta (n, D) that may lie behind the measurement y (*y_shape) into ``axes``."""


class HasLandmarks(ABC):
    """A simulator whose parameter space has points that a reader knows, such as modes, for the report."""

    @property
    @abstractmethod
    def landmarks(self) -> Tensor:
        """The points (L, D), L >= 1, in the units of theta; the report names them 1 to L in this order."""


class Posterior(ABC):
    """q(theta | y) for any measurement y of the simulator that it was fitted on.

    ``history`` holds curves of the training, for display; it is no part of ``state()``.
    """

    history: Mapping[str, Tensor] = MappingProxyType({})

    @abstractmethod
    def sample(self, y: Tensor, n: int) -> Tensor:
        """Draws (n, B, D) for measurements y (B, *y_shape), from torch's global generator."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Tensors, and settings that JSON can hold, from which ``Method.restore`` makes the same posterior."""


class HasLogProb(ABC):
    """A posterior with a density."""

    @abstractmethod
    def log_prob(self, theta: Tensor, y: Tensor) -> Tensor:
        """log q(theta | y), (n, B), for theta (n, B, D) and y (B, *y_shape), in nats, theta in its own units."""


class HasLatent(ABC):
    """A posterior whose draws are a function of the measurement and of a latent vector z ~ N(0, I)."""

    @property
    @abstractmethod
    def latent_dim(self) -> int:
        """K, the number of coordinates of z, at least 1."""

    @abstractmethod
    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """Draws (n, B, D), theta in its own units, for z (n, B, K) and y (B, *y_shape); deterministic."""


class HasSignals(ABC):
    """A posterior that says what would be measured, without noise: at the times seen, later, or for another theta."""

    @abstractmethod
    def reconstruct(self, y: Tensor, n: int) -> Tensor:
        """Draws of the signal behind each measurement, (n, B, *y_shape), for measurements y (B, *y_shape)."""

    @abstractmethod
    def extrapolate(self, y: Tensor, n: int, horizon: int) -> Tensor:
        """The same for ``horizon`` times from the first one on: (n, B, *y_shape), its last axis of that length."""

    @abstractmethod
    def intervene(self, y: Tensor, n: int, theta: Tensor) -> Tensor:
        """Draws of the signal that each measurement would have had with parameters theta (B, D): (n, B, *y_shape)."""


class Progress(Protocol):
    """Where a method tells how far it has come. Purely for display: it must not change what a method does."""

    def update(self, done: int, total: int, message: str = "") -> None:
        """Say that ``done`` of ``total`` steps are taken."""


class Method(ABC):
    """A way to a posterior: a frozen dataclass of hyperparameters, every one with a default.

    ``quick``: settings with which ``fit`` takes seconds, for the conformance checks.
    """

    spec: ClassVar[MethodSpec]
    quick: ClassVar[Mapping[str, object]] = {}

    @abstractmethod
    def fit(self, simulations: Simulations, problem: Problem, progress: Progress) -> Posterior:
        """Return a new posterior. Changes neither self nor its arguments, and sees neither truth nor reference."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor], settings: dict, problem: Problem) -> Posterior:
        """The posterior whose ``state()`` was ``(tensors, settings)``."""


class Metric(ABC):
    """Scores of draws against the truth. ``name`` is the id of its rows, or the part before the slash.

    ``single``: of use for one measurement; what is fitted for each measurement anew is scored by such metrics alone.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    single: ClassVar[bool] = False

    @abstractmethod
    def score(self, draws: Draws, truth: Truth) -> Iterable[Score]:
        """The scores, each with its null band where it has one; nothing where the metric does not apply."""
