"""What a report says of parameters in their own units and of signals: waves, right and wrong on purpose."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gaussian_results import make_job, scored, without_tensors
from gaussian_results import make_truth as gaussian_truth
from PIL import Image
from torch import Tensor
from torch.distributions import Independent, Normal, Uniform

from posterior_bench import Draws, HasSignals, Parameter, Truth
from posterior_bench.evaluation import Calibration, IntervalCoverage, LogScore, ParameterError, Signals, Skill, evaluate
from posterior_bench.reporting import TaskSummary, summarise, write_report
from posterior_bench.reporting.contenders import Number
from posterior_bench.reporting.page import report_looks
from posterior_bench.reporting.signal_figures import forecast_figure, intervention_figure, signal_figures
from posterior_bench.reporting.signal_tables import estimates_table, signal_name, signals_table
from posterior_bench.reporting.tables import Table
from posterior_bench.running.results import Artefact, Results, TaskInfo
from posterior_bench.runtime import scope

SEEN, STEP = 20, 0.1
SPREAD = 0.05
"""Of the frequency's posterior, rad/s."""


@dataclass(frozen=True)
class Waves(HasSignals):
    """cos(w t) of frequencies near those that are known but for a normal error; ``deaf`` to interventions."""

    known: Tensor
    y: Tensor
    width: float = 1.0
    deaf: bool = False

    def draws(self, y: Tensor, n: int) -> Tensor:
        rows = [int((self.y == one).all(1).nonzero()[0]) for one in y]
        return self.known[rows] + self.width * SPREAD * torch.randn(n, len(y), 1)

    def reconstruct(self, y: Tensor, n: int) -> Tensor:
        return self.extrapolate(y, n, SEEN)

    def extrapolate(self, y: Tensor, n: int, horizon: int) -> Tensor:
        return wave(self.draws(y, n), horizon)

    def intervene(self, y: Tensor, n: int, theta: Tensor) -> Tensor:
        return (
            self.reconstruct(y, n) if self.deaf else wave(theta.expand(n, -1, -1) + 1e-3 * torch.randn(n, 1, 1), SEEN)
        )


def wave(theta: Tensor, steps: int) -> Tensor:
    return torch.cos(theta * STEP * torch.arange(steps))


LABELS = {"honest": "Honest waves", "sure": "Too sure", "deaf": "Deaf to parameters", "plain": "No signals"}


def make_waves(measurements: int = 120, draws: int = 60) -> Results:
    prior = Independent(Uniform(torch.tensor([1.0]), torch.tensor([3.0])), 1)
    theta = prior.sample((measurements,))
    y = wave(theta, SEEN) + 0.01 * torch.randn(measurements, SEEN)
    parameters = (Parameter("frequency", "rad/s", r"\omega"),)
    known = theta + SPREAD * torch.randn_like(theta)
    truth = Truth(theta, y, prior, prior.sample((2000,)), parameters, lambda t: wave(t, SEEN), signal=wave)
    jobs = []
    for name in LABELS:
        posterior = Waves(known, y, 0.1 if name == "sure" else 1.0, name == "deaf")
        found = posterior.draws(y, draws)

        def log_density(at: Tensor, width: float = posterior.width) -> Tensor:
            return Normal(known[: at.shape[1], 0], width * SPREAD).log_prob(at[..., 0])

        own = Draws(found, log_density, signals=None if name == "plain" else posterior)
        metrics = (Calibration(), Skill(), ParameterError(), IntervalCoverage(), LogScore(), Signals())
        scores = evaluate(own, truth, metrics)
        per = {s.metric: s.per_measurement for s in scores if s.per_measurement is not None}
        extra = {f"{s.metric}/{key}": value for s in scores for key, value in s.artefacts.items()}
        artefact = Artefact(found[:, :8], theta[:8], y[:8], truth.prior_draws, per, extra)
        jobs.append(make_job("waves", name, scores, artefact))
    names = tuple(f"angle_{i}" for i in range(SEEN))
    task = TaskInfo("waves", 1, "wave", {}, "waves", "", parameters, names)
    return Results("waves", "Waves", "", measurements, draws, (task,), LABELS, tuple(jobs), "posterior-bench run waves")


@pytest.fixture(scope="module")
def waves() -> Results:
    with scope(5):
        return make_waves()


@pytest.fixture(scope="module")
def summary(waves: Results) -> TaskSummary:
    return summarise(waves)[0]


def with_scores(summary: TaskSummary, key: str, scores: dict[str, Number | None]) -> TaskSummary:
    changed = []
    for c in summary.contenders:
        if c.key == key:
            known = {**c.scores, **scores}
            c = replace(c, scores={metric: found for metric, found in known.items() if found is not None})
        changed.append(c)
    return replace(summary, contenders=tuple(changed))


def cells(table: Table | None, key: str) -> dict[str, tuple[str, str, str]]:
    assert table is not None
    line = next(line for line in table.lines if line.method == key)
    heads = [f"{c.group}: {c.head}" for c in table.columns]
    return {head: (cell.text, cell.detail, cell.tone) for head, cell in zip(heads, line.cells, strict=True)}


def test_parameters_stand_in_their_unit_and_over_confidence_is_marked(summary: TaskSummary) -> None:
    table = estimates_table(summary)
    assert table is not None
    assert table.caption == "waves: Parameters under incomplete physics"
    assert [line.method for line in table.lines] == [c.key for c in summary.scored]
    assert any("rad/s" in column.unit for column in table.columns)
    honest, sure = cells(table, "honest"), cells(table, "sure")
    error = next(c for c in summary.scored if c.key == "honest").score("mean_error/frequency")
    assert error is not None
    assert honest["posterior mean: Error"][0] == f"{error.value:.3f}"
    for head in ("posterior mean: Error", "posterior mean: Relative error", "proper scores: CRPS"):
        assert (honest[head][2], sure[head][2]) == ("", "bad"), head
    for head in ("proper scores: −log density", "central intervals: Coverage, 90 %"):
        assert (honest[head][2], sure[head][2]) == ("", "bad"), head
    assert float(honest["proper scores: −log density"][0].replace("−", "-")) < -1, "of a density above 1"
    low, high = honest["proper scores: −log density"][1].replace("−", "-").split(" to ")
    assert float(low) < float(high)


def test_a_bias_is_marked_on_either_side_and_no_density_is_infinite(summary: TaskSummary) -> None:
    low = with_scores(summary, "honest", {"bias/frequency": Number(-0.2, null_low=-0.01, null_high=0.01)})
    assert cells(estimates_table(low), "honest")["posterior mean: Bias"] == ("−0.20", "0 ± 0.010", "bad")
    none = with_scores(summary, "honest", {"log_score_zero_density": Number(0.25)})
    found = cells(estimates_table(none), "honest")["proper scores: −log density"]
    assert found[0] == "infinite"
    assert "25.0 %" in found[1]
    assert found[2] == "bad"


def test_several_parameters_have_a_line_each_and_many_have_no_table(summary: TaskSummary, results: Results) -> None:
    torch.manual_seed(0)
    truth = gaussian_truth(60, 20, torch.ones(3))
    theta = truth.prior.sample((20, 60))
    job = scored("linear", "prior", truth, theta, (Calibration(), Skill(), ParameterError()), budget=0)
    few = summarise(without_tensors(replace(results, jobs=(job,), tasks=results.tasks[:1])))[0]
    table = estimates_table(few)
    assert table is not None
    assert table.caption == "linear: Parameters in their own units"
    assert [line.cells[1].text for line in table.lines] == [
        {"depth": "depth [mm]", "slope": "slope [rad]", "hidden": "hidden"}[name] for name in few.names
    ]
    assert not {"Regret", "−log density"} & {column.head for column in table.columns}, "they are of all at once"
    more = (*few.info.parameters, Parameter("fourth"), Parameter("fifth"))
    assert estimates_table(replace(few, info=replace(few.info, parameters=more[:4]))) is not None
    assert estimates_table(replace(few, info=replace(few.info, parameters=more))) is None
    assert signals_table(few) is None
    assert signal_figures(few, {}) == []
    assert estimates_table(summarise(results)[0]) is None, "no rows of such errors"


def test_signals_of_those_that_make_them(summary: TaskSummary) -> None:
    table = signals_table(summary)
    assert table is not None
    assert {line.method for line in table.lines} == {"honest", "sure", "deaf"}
    assert "angle" in table.notes[0]
    honest, sure, deaf = (cells(table, key) for key in ("honest", "sure", "deaf"))
    for horizon in ("1x", "4x", "12x"):
        assert sure[f"forecast error: {horizon}"][2] == "bad"
        assert sure[f"forecast coverage at 90 %: {horizon}"][2] == "bad"
        assert float(honest[f"forecast coverage at 90 %: {horizon}"][0]) == pytest.approx(90, abs=5)
    assert deaf["error with other parameters: Intervention"][2] == "bad"
    assert float(deaf["error with other parameters: Intervention"][0]) > 0.2


def test_what_diverged_is_no_dash(summary: TaskSummary) -> None:
    changed: dict[str, Number | None] = {"forecast_error/4x": None, "forecast_diverged/4x": Number(0.02)}
    changed |= {"intervention_error": None, "intervention_diverged": Number(0.5)}
    found = cells(signals_table(with_scores(summary, "honest", changed)), "honest")
    assert found["forecast error: 4x"] == ("diverged", "2.00 % of draws", "bad")
    assert found["error with other parameters: Intervention"] == ("diverged", "50.0 % of draws", "bad")
    assert found["forecast error: 1x"][0] != "diverged"


def test_what_is_measured_has_the_name_that_its_numbers_share(summary: TaskSummary) -> None:
    assert signal_name(summary.info) == "angle"
    assert signal_name(replace(summary.info, y_names=())) == "signal"
    assert signal_name(replace(summary.info, y_names=("height", "width"))) == "signal"
    assert signal_name(replace(summary.info, y_names=("1", "2"))) == "signal"


def test_figures_show_each_method_in_its_colour(waves: Results, summary: TaskSummary) -> None:
    looks = report_looks(waves)
    forecast, intervention = forecast_figure(summary, looks), intervention_figure(summary, looks)
    assert forecast is not None
    assert intervention is not None
    for figure in (forecast, intervention):
        for key in ("honest", "sure", "deaf"):
            assert looks[key].colour.lower() in figure.svg.decode(), (figure.name, key)
            assert LABELS[key] in figure.alt
        assert looks["plain"].colour.lower() not in figure.svg.decode()
        assert np.asarray(Image.open(io.BytesIO(figure.png)).convert("L")).std() > 5
    again = forecast_figure(summary, looks)
    assert again is not None
    assert again.png == forecast.png


def test_methods_that_do_not_fit_a_figure_are_named(waves: Results, summary: TaskSummary) -> None:
    one = next(c for c in summary.contenders if c.key == "honest")
    many = tuple(replace(one, key=f"honest{i}", label=f"Number {i}") for i in range(8))
    look = report_looks(waves)["honest"]
    figure = forecast_figure(replace(summary, contenders=many), {c.key: look for c in many})
    assert figure is not None
    assert "Not drawn: Number 6 and Number 7." in figure.caption


def test_page_holds_tables_figures_and_definitions(waves: Results, tmp_path: Path) -> None:
    page = write_report(waves, tmp_path)
    for name in ("waves-estimates", "waves-signals"):
        assert (tmp_path / "tables" / f"{name}.md").exists()
    for name in ("waves-forecasts", "waves-interventions"):
        assert (tmp_path / "figures" / f"{name}.png").exists()
    text = page.read_text()
    assert text.index("Parameters under incomplete physics") < text.index("waves: further scores")
    assert "Reconstruction, forecast, intervention" in text
    assert "Parameters under incomplete physics" in (tmp_path / "README.md").read_text()
