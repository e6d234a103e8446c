"""Figures of latent spaces whose effects are known: what is coloured how, and that they are absent without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from posterior_bench import HasLatent
from posterior_bench.reporting import TaskSummary, write_report
from posterior_bench.reporting.failures import trouble_table
from posterior_bench.reporting.latent_colours import HUES, INNER, nearest, shades
from posterior_bench.reporting.latent_figures import latent_figures
from posterior_bench.reporting.page import report_looks
from posterior_bench.running.latent import latent_of
from posterior_bench.running.results import Latent, Results
from posterior_bench.runtime import scope

LANDMARKS = """
from dataclasses import dataclass
import torch
from posterior_bench import HasLandmarks, Parameter, Simulator, Spec

@dataclass(frozen=True)
class Marked(Simulator, HasLandmarks):
    broken: bool = False

    @property
    def spec(self):
        return Spec("marked", 1, "", (Parameter("a"),), (3,))

    def prior(self): ...
    def simulate(self, theta): ...

    @property
    def landmarks(self):
        return torch.zeros(2) if self.broken else torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]])
"""


class Rotation(HasLatent):
    """theta = y / 2 + z for as many coordinates as wanted; those beyond the parameters do little."""

    def __init__(self, latent_dim: int) -> None:
        self.dim = latent_dim

    @property
    def latent_dim(self) -> int:
        return self.dim

    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        return y / 2 + z[..., :3] + 0.1 * z[..., 3:].sum(-1, keepdim=True)


def record(latent_dim: int) -> Latent:
    with scope(3):
        return latent_of(Rotation(latent_dim), torch.randn(64, 3), torch.ones(3), 8)


def with_latents(summary: TaskSummary, latents: dict[str, Latent]) -> TaskSummary:
    contenders = tuple(
        replace(c, jobs=tuple(replace(job, latent=latents.get(c.key)) for job in c.jobs)) for c in summary.contenders
    )
    return replace(summary, contenders=contenders)


def test_hue_is_the_nearest_landmark_and_brightness_its_distance() -> None:
    landmarks = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    theta = torch.tensor([[[0.0, 0.0], [10.0, 0.0]], [[0.0, 2.5], [12.0, 0.0]]])
    index, distance = nearest(theta, landmarks, torch.tensor([1.0, 5.0]))
    assert index.tolist() == [[0, 1], [0, 1]]
    np.testing.assert_allclose(distance, [[0, 0], [0.5, 2]])  # the second parameter is counted in its own sd
    hues = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    image = shades(index, distance, hues, 1.0)
    np.testing.assert_allclose(image[0], hues)
    np.testing.assert_allclose(image[1], [[0.55, 0, 0], [0, 0, 0.1]], rtol=1e-5)


def test_the_pale_part_holds_five_per_cent() -> None:
    with scope(0):
        radius = torch.randn(100_000, 2).norm(dim=1)
    assert (radius > INNER).float().mean() == pytest.approx(0.05, abs=0.004)
    assert len(set(HUES)) == 8


def test_without_a_latent_there_is_no_figure(summaries: tuple[TaskSummary, ...], results: Results) -> None:
    assert latent_figures(summaries[0], report_looks(results)) == []


def test_planes_by_value_and_table_of_effects(summaries: tuple[TaskSummary, ...], results: Results) -> None:
    summary = with_latents(summaries[0], {"exact_twin": record(3), "too_narrow": record(12)})
    planes, effects = latent_figures(summary, report_looks(results))
    assert (planes.name, effects.name) == ("linear-latent-planes", "linear-latent-effects")
    assert "the parameter that the two coordinates of a method move most" in planes.caption
    assert "two with the largest effects" in planes.caption
    assert "true value" in planes.caption
    assert "Jansen 1999" in effects.caption
    assert planes.png.startswith(b"\x89PNG")
    assert planes.light
    assert effects.light


def test_one_coordinate_has_a_table_alone(summaries: tuple[TaskSummary, ...], results: Results) -> None:
    one = replace(record(3), coordinates=torch.empty(0).long(), planes=torch.empty(0))
    (figure,) = latent_figures(with_latents(summaries[0], {"exact_twin": one}), report_looks(results))
    assert figure.name == "linear-latent-effects"


@pytest.mark.parametrize("broken", [False, True])
def test_planes_by_landmarks(
    summaries: tuple[TaskSummary, ...], results: Results, tmp_path: Path, broken: bool
) -> None:
    path = tmp_path / f"marked_{broken}.py"
    path.write_text(LANDMARKS)
    info = replace(summaries[0].info, simulator=f"{path}:Marked", options={"broken": broken})
    summary = with_latents(replace(summaries[0], info=info), {"exact_twin": record(3)})
    planes, _ = latent_figures(summary, report_looks(results))
    assert ("the landmark that theta is nearest to" in planes.caption) != broken
    assert ("expected (L, 3)" in planes.caption) == broken


def test_the_page_holds_both_figures_and_says_why_one_is_missing(results: Results, tmp_path: Path) -> None:
    latents = {"exact_twin": record(3)}
    jobs = tuple(
        replace(job, latent=latents.get(job.method) if job.rows[0].task == "linear" else None)
        if job.method != "too_narrow"
        else replace(job, latent_problem="RuntimeError: no way back")
        for job in results.jobs
    )
    changed = replace(results, jobs=jobs)
    text = write_report(changed, tmp_path).read_text(encoding="utf-8")
    assert [name for name in ("linear", "scaled") if f'<figure id="{name}-latent-planes">' in text] == ["linear"]
    assert 0 < text.index("linear-joint") < text.index("linear-latent-planes") < text.index("linear-training")
    assert (tmp_path / "figures" / "linear-latent-effects.png").is_file()
    lines = [line for line in trouble_table(changed).lines if line.method == "too_narrow"]
    assert {(line.cells[4].text, line.cells[5].text) for line in lines} == {
        ("no latent figures", "RuntimeError: no way back")
    }
    assert "no way back" in text
