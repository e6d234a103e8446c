"""Colours of a latent plane: the nearest landmark and how far it is, or the value of one parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.patches import Patch
from torch import Tensor

from ..running.latent import END
from ..running.results import Artefact, Latent
from .contenders import Contender
from .drawing import parameter_label
from .style import significant
from .summary import TaskSummary

HUES = ("#77AADD", "#EE8866", "#AAAA00", "#FFAABB", "#99DDFF", "#EEDD88", "#44BB99", "#BBCC33")
"""Paul Tol's light scheme for colour-blind readers (SRON/EPS/TN/09-002, 2021), without its grey: all of them are light,
so that how dark a place is can say how far it is. In an order that keeps the similar ones apart, since landmarks that
follow each other are often neighbours. They recur from the ninth landmark on; the numbers do not."""

DARKEST = 0.1
"""What is left of a hue far from its landmark."""

VALUES = "cividis"
"""Sequential colour map of a parameter's value, nearly the same for all kinds of colour vision."""

INNER = math.sqrt(-2 * math.log(0.05))
"""Radius of the circle that holds 95 % of N(0, I_2): the square of the radius is exponential with mean 2."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A method with the latent record of its first fit."""

    contender: Contender
    latent: Latent
    artefact: Artefact

    @property
    def sd(self) -> Tensor:
        """(D,), of the prior."""
        return self.artefact.prior.std(0).clamp_min(1e-30)


@dataclass(frozen=True, eq=False)
class Colouring:
    """How theta is told by colours: an image of each plane of each method, with the places of numbers, and the values
    less the true one; a colour bar for all methods, or one each; a key; and what the caption says.
    """

    images: list[list[np.ndarray]]
    numbers: list[list[dict[int, tuple[float, float]]]]
    levels: list[list[np.ndarray | None]]
    bars: list[ScalarMappable]
    labels: list[str]
    key: list[Artist]
    text: str
    alt: str


def by_landmarks(drawn: Sequence[Drawn], landmarks: Tensor) -> Colouring:
    """Hue tells the nearest landmark, brightness its distance in sd of the prior."""
    count, sd = len(landmarks), drawn[0].sd
    limit = float(torch.pdist(landmarks / sd).min()) / 2 if count > 1 else 1.0
    hues = np.array([to_rgb(HUES[i % len(HUES)]) for i in range(count)])
    images, numbers = [], []
    for one in drawn:
        pairs = [nearest(theta, landmarks, one.sd) for theta in one.latent.planes]
        images.append([_bytes(shades(index, distance, hues, limit)) for index, distance in pairs])
        numbers.append([_places(index, distance) for index, distance in pairs])
    bar = LinearSegmentedColormap.from_list("distance", ["white", str(DARKEST)])
    return Colouring(
        images=images,
        numbers=numbers,
        levels=[[None] * len(own) for own in images],
        bars=[ScalarMappable(Normalize(0, limit), bar)],
        labels=["distance from the nearest landmark [sd of the prior]"],
        key=[Patch(facecolor=hues[i], label=f"landmark {i + 1}{_where(landmarks[i])}") for i in range(count)],
        text=(
            "Hue and number tell the landmark that theta is nearest to, brightness how near: bright on it, dark from "
            f"{significant(limit)} sd of the prior on, half way between the two closest landmarks. A good latent "
            "space gives each landmark that the measurement allows its share of the draws, and no other landmark; "
            "dark bands between them are seams, where draws fall between landmarks."
        ),
        alt="coloured by the nearest landmark and the distance to it",
    )


def by_value(drawn: Sequence[Drawn], summary: TaskSummary) -> Colouring:
    """Colour is the value of the parameter that a method's two coordinates move most, in sd of the prior."""
    moved = [one.latent.effect[one.latent.coordinates].square().sum(0).nan_to_num(0.0) for one in drawn]
    chosen = [int(effect.argmax()) for effect in moved]
    values = [one.latent.planes[..., column] for one, column in zip(drawn, chosen, strict=True)]
    bars = {}
    for column in set(chosen):  # methods that show the same parameter share its scale
        same = torch.cat([value.flatten() for value, own in zip(values, chosen, strict=True) if own == column])
        low, high = np.quantile(same.numpy(), [0.01, 0.99]).tolist()
        bars[column] = ScalarMappable(Normalize(low, high if high > low else low + 1.0), VALUES)
    truths = [one.artefact.truth[one.latent.places, column] for one, column in zip(drawn, chosen, strict=True)]
    return Colouring(
        images=[
            [_bytes(bars[column].to_rgba(value.numpy())[..., :3]) for value in own]
            for own, column in zip(values, chosen, strict=True)
        ],
        numbers=[[{} for _ in own] for own in values],
        levels=[
            [_between(value.numpy(), float(truth)) for value, truth in zip(own, known, strict=True)]
            for own, known in zip(values, truths, strict=True)
        ],
        bars=[bars[column] for column in chosen],
        labels=[parameter_label(summary.info.parameters[column]) for column in chosen],
        key=[],
        text=(
            "Colour is the value of the parameter that the two coordinates of a method move most, in sd of the prior; "
            "along the dashed red line it has its true value. A colour that changes in one direction alone: the other "
            "coordinate leaves the parameter as it is."
        ),
        alt="coloured by the parameter that they move most",
    )


def nearest(theta: Tensor, landmarks: Tensor, sd: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The nearest landmark of theta (S, S, D), (S, S), and its distance (S, S) in units of ``sd`` (D,)."""
    distance, index = torch.cdist(theta.flatten(0, 1) / sd, landmarks / sd).min(1)
    return index.view(theta.shape[:2]).numpy(), distance.view(theta.shape[:2]).numpy()


def shades(index: np.ndarray, distance: np.ndarray, hues: np.ndarray, limit: float) -> np.ndarray:
    """Colours (S, S, 3): the hue of each landmark, fully bright at distance 0, nearly black from ``limit`` on."""
    bright = 1 - (1 - DARKEST) * np.clip(distance / limit, 0, 1)
    image: np.ndarray = hues[index] * bright[..., None]
    return image


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The two latent coordinates (size, size) at each point of a plane: across, and up."""
    ticks = np.linspace(-END, END, size)
    across, up = np.meshgrid(ticks, ticks)
    return across, up


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.round(255 * image).astype(np.uint8)


def _places(index: np.ndarray, distance: np.ndarray) -> dict[int, tuple[float, float]]:
    """Where to write a landmark's number: amid its brighter half, if it has 0.5 % of what lies inside the circle."""
    across, up = grid(len(index))
    inside = np.hypot(across, up) < INNER - 0.15  # room for the number
    found = {}
    for landmark in np.unique(index):
        own = inside & (index == landmark)
        if own.sum() > 0.005 * inside.sum():
            bright = own & (distance <= np.median(distance[own]))
            away = np.hypot(across - across[bright].mean(), up - up[bright].mean())
            place = np.argmin(np.where(bright, away, np.inf))
            found[int(landmark) + 1] = float(across.flat[place]), float(up.flat[place])
    return found


def _between(value: np.ndarray, truth: float) -> np.ndarray | None:
    """The values less the truth, where its level crosses the plane."""
    return value - truth if value.min() < truth < value.max() else None


def _where(landmark: Tensor) -> str:
    """A landmark's coordinates, where there are few."""
    if len(landmark) > 3:
        return ""
    return f" ({', '.join(significant(value) for value in landmark.tolist())})"
