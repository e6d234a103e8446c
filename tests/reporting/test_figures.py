from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from posterior_bench import Parameter
from posterior_bench.reporting import calibration_figures, cost_figures, picture_figures, posterior_figures
from posterior_bench.reporting.drawing import parameter_label
from posterior_bench.reporting.page import report_looks
from posterior_bench.reporting.style import MARKERS
from posterior_bench.reporting.summary import TaskSummary
from posterior_bench.running.results import Results


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are finished in a test, instead of their files."""
    found: list[Figure] = []
    for module in (calibration_figures, cost_figures, posterior_figures):
        monkeypatch.setattr(module, "finish", lambda figure, *texts: found.append(figure) or texts)
    return found


def _line(figure: Figure, panel: int, colour: str) -> np.ndarray:
    return next(
        line.get_ydata()
        for line in figure.axes[panel].lines
        if line.get_color() == colour and len(line.get_ydata()) > 2
    )


def test_over_confident_curves_lie_below_and_are_named_there(
    summaries: tuple[TaskSummary, ...], results: Results, drawn: list[Figure]
) -> None:
    look = report_looks(results)
    calibration_figures.calibration_figures(summaries[0], look)
    assert [len(figure.axes) for figure in drawn] == [2, 1]
    for figure in drawn:
        curve = np.asarray(_line(figure, 0, look["too_narrow"].colour))
        assert (curve < 0).mean() > 0.95
        assert curve.min() < -5  # per cent
        heights = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts}
        assert heights["over-confident"] < 0.5 < heights["under-confident"]


def test_the_null_band_of_the_figure_is_that_of_the_metric(
    summaries: tuple[TaskSummary, ...], results: Results, drawn: list[Figure]
) -> None:
    calibration_figures.calibration_figures(summaries[0], report_looks(results))
    band = drawn[0].axes[0].collections[0].get_paths()[0].vertices
    widest = 100 * 1.96 * np.sqrt(0.25 / results.measurements)
    assert band[:, 1].max() == pytest.approx(widest, rel=0.01)


def test_a_figure_without_null_bands_says_so(summaries: tuple[TaskSummary, ...], results: Results) -> None:
    def bare(summary: TaskSummary) -> TaskSummary:
        contenders = []
        for c in summary.contenders:
            jobs = []
            for job in c.jobs:
                if job.artefact is not None:
                    extra = {k: v for k, v in job.artefact.extra.items() if not k.endswith(("_low", "_high"))}
                    job = replace(job, artefact=replace(job.artefact, extra=extra))
                jobs.append(job)
            contenders.append(replace(c, jobs=tuple(jobs)))
        return replace(summary, contenders=tuple(contenders), others=())

    (figure,) = calibration_figures.calibration_figures(bare(summaries[0]), report_looks(results))
    assert "No null band is known" in figure.caption


def test_ranks_of_narrow_draws_rise_first(
    summaries: tuple[TaskSummary, ...], results: Results, drawn: list[Figure]
) -> None:
    look = report_looks(results)
    calibration_figures.rank_figure(summaries[0], look, results.draws)
    curve = np.asarray(_line(drawn[0], 0, look["too_narrow"].colour))
    assert curve[5:20].mean() > 2
    assert curve[80:95].mean() < -2


def test_skill_against_cost_shows_who_fails_the_gate(
    summaries: tuple[TaskSummary, ...], results: Results, drawn: list[Figure]
) -> None:
    look = report_looks(results)
    cost_figures.cost_figure(summaries, look)
    marks = {
        line.get_color(): line.get_markerfacecolor() for line in drawn[0].axes[0].lines if line.get_marker() in MARKERS
    }
    assert marks[look["exact_twin"].colour] == look["exact_twin"].colour
    assert marks[look["too_narrow"].colour] == "white"


def test_labels_beside_a_figure_do_not_overlap() -> None:
    found = cost_figures.spread([0.0, 0.5, 0.51, 0.52, 1.0], 0.1, 0.0, 1.0)
    assert found == pytest.approx([0.0, 0.41, 0.51, 0.61, 1.0])
    assert (np.diff(cost_figures.spread([0.95] * 5, 0.1, 0.0, 1.0)) > 0.0999).all()


def test_drawing_leaves_no_global_state(summaries: tuple[TaskSummary, ...], results: Results) -> None:
    import matplotlib.pyplot as plt

    before = {name: value for name, value in mpl.rcParams.items() if name != "backend"}  # found out when it is read
    random = torch.get_rng_state()
    posterior_figures.marginal_figure(summaries[0], report_looks(results))
    posterior_figures.joint_figure(summaries[0], report_looks(results))
    assert {name: mpl.rcParams[name] for name in before} == before
    assert plt.get_fignums() == []
    assert torch.equal(torch.get_rng_state(), random)


def test_marginals_show_what_the_prior_is(
    summaries: tuple[TaskSummary, ...], results: Results, drawn: list[Figure]
) -> None:
    look = report_looks(results)
    posterior_figures.marginal_figure(summaries[1], look)
    axes = drawn[0].axes[0]
    assert drawn[0].axes[6].get_xlabel() == "$d$ (depth) [mm]"
    truth = [line for line in axes.lines if line.get_linestyle() == "--"]
    job = next(job for job in results.jobs if job.rows[0].task == "scaled" and job.artefact is not None)
    assert job.artefact is not None
    assert truth[-1].get_xdata()[0] == pytest.approx(float(job.artefact.truth[0, 0]))
    assert look["prior"].colour not in {line.get_color() for line in axes.lines}


def test_a_symbol_that_is_no_formula_gives_way_to_the_name() -> None:
    assert parameter_label(Parameter("a", "m", r"\alpha")) == r"$\alpha$ (a) [m]"
    assert parameter_label(Parameter("a", "$", r"\frac{")) == r"a [\$]"


def test_a_collapsed_posterior_is_drawn(summaries: tuple[TaskSummary, ...], results: Results) -> None:
    def collapse(summary: TaskSummary) -> TaskSummary:
        first, *rest = summary.contenders
        job = first.jobs[0]
        assert job.artefact is not None
        artefact = replace(job.artefact, draws=torch.zeros_like(job.artefact.draws))
        return replace(summary, contenders=(replace(first, jobs=(replace(job, artefact=artefact),)), *rest))

    found = posterior_figures.marginal_figure(collapse(summaries[0]), report_looks(results))
    assert found is not None
    assert found.png.startswith(b"\x89PNG")


PICTURE = """
from dataclasses import dataclass
from posterior_bench import HasPicture, Parameter, Simulator, Spec

@dataclass(frozen=True)
class Drawn(Simulator, HasPicture):
    broken: bool = False

    @property
    def spec(self):
        return Spec("drawn", 1, "", (Parameter("a"),), (3,))

    def prior(self): ...
    def simulate(self, theta): ...

    def picture(self, axes, theta, y):
        if self.broken:
            raise RuntimeError("no ink")
        axes.plot(theta[:, 0], theta[:, 1], "o", label="dots")
        axes.legend()
"""


@pytest.mark.parametrize("broken", [False, True])
def test_the_simulators_picture(
    summaries: tuple[TaskSummary, ...], results: Results, tmp_path: Path, broken: bool
) -> None:
    path = tmp_path / f"drawn_{broken}.py"
    path.write_text(PICTURE)
    info = replace(summaries[0].info, simulator=f"{path}:Drawn", options={"broken": broken})
    found = picture_figures.picture_figure(replace(summaries[0], info=info), report_looks(results))
    assert found is not None
    assert ("RuntimeError: no ink" in found.caption) == broken
    assert picture_figures.picture_figure(summaries[0], report_looks(results)) is None  # no such simulator here
