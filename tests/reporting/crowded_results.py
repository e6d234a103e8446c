"""Results as a large suite leaves them: fourteen methods, two tasks, two budgets, repetitions, a published table."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from gaussian_results import make_job
from torch import Tensor
from torch.distributions import Independent, Normal

from posterior_bench import Draws, Parameter, Truth
from posterior_bench.evaluation import Calibration, MAPEstimate, PosteriorMMD, Resimulation, Skill, evaluate
from posterior_bench.running.results import Artefact, Cost, JobResult, PublishedTable, Results, TaskInfo

NAMES = ("sO2", "v_hb1", "a_mie1", "g1", "d1", "v_hb2", "a_mie2", "g2", "d2", "v_hb3", "a_mie3", "g3", "d3")
NOISE = (0.2, 0.4, 0.8, 9.0, 9.0, 1.2, 1.0, 30.0, 9.0, 4.0, 2.0, 30.0, 30.0)
SYMBOLS = {name: rf"{name[0]}_{{{name[1:].replace('_', '')}}}" for name in NAMES}
UNITS = {"a_mie1": "1/cm", "a_mie2": "1/cm", "a_mie3": "1/cm", "d1": "mm", "d2": "mm", "d3": "mm"}

METHODS: dict[str, tuple[str, str, float, float, float]] = {
    "inn": ("inn", "INN", 1.0, 0.0, 100),
    "inn_published": ("inn", "INN, published losses", 0.85, 0.05, 110),
    "inn_likelihood": ("inn_likelihood", "INN (likelihood)", 1.0, 0.02, 50),
    "inn_ly_lz": ("inn_ly_lz", "INN, L_y + L_z only", 0.7, 0.15, 70),
    "inn_lx": ("inn_lx", "INN, L_x only", 1.0, 3.0, 70),
    "cinn_affine": ("cinn", "cINN (affine)", 1.02, 0.0, 45),
    "cinn_spline": ("cinn", "cINN (spline)", 0.98, 0.0, 60),
    "cvae": ("cvae", "cVAE", 1.3, 0.2, 40),
    "cvae_iaf": ("cvae_iaf", "cVAE-IAF", 1.2, 0.1, 55),
    "dropout_nn": ("dropout_nn", "Dropout network", 0.5, 0.1, 35),
    "deep_ensemble": ("deep_ensemble", "Deep ensemble", 0.9, 0.05, 90),
    "abc_rejection": ("abc_rejection", "ABC rejection", 1.6, 0.3, 0.004),
    "abc_regression": ("abc_regression", "ABC with regression", 1.1, 0.1, 0.01),
}
"""Key -> method, label, factor on the width of its posterior, noise on what it sees of y, seconds of a fit."""


def posterior(y: Tensor, noise: Tensor, n: int, width: float, blur: float) -> Tensor:
    """Draws (n, T, D) of a method that sees y through further noise, and is ``width`` times as sure as it ought."""
    total = noise**2 + blur**2
    seen = y + blur * torch.randn_like(y)
    return seen / (1 + total) + width * (total / (1 + total)).sqrt() * torch.randn(n, *y.shape)


def crowded_results(
    measurements: int = 150, draws: int = 60, repetitions: tuple[int, int] = (3, 2), tasks_wanted: int = 2
) -> Results:
    """Fit 2 of the deep ensemble and all fits of the dropout network failed at the larger budget."""
    torch.manual_seed(0)
    parameters = tuple(Parameter(name, UNITS.get(name, ""), SYMBOLS[name]) for name in NAMES)
    jobs: list[JobResult] = []
    tasks = []
    for task, factor in (("tissue", 1.0), ("tissue_snr50", 0.5))[:tasks_wanted]:
        noise = factor * torch.tensor(NOISE)
        truth = _truth(measurements, draws, noise, parameters)
        for method in ("prior", "reference"):
            exact = posterior(truth.y, noise, draws, 1.0, 0.0)
            theta = truth.prior.sample((draws, measurements)) if method == "prior" else exact
            jobs.append(_job(task, method, method, truth, theta, 0, 0, 0.01))
        for budget, fits in zip((15000, 100000), repetitions, strict=True):
            for key, (method, _, width, blur, seconds) in METHODS.items():
                for repetition in range(fits):
                    if budget > 15000 and (key == "dropout_nn" or (key, repetition) == ("deep_ensemble", 1)):
                        reason = "TimeoutError: more than 15 minutes"
                        identity = {"budget": budget, "repetition": repetition}
                        failed = make_job(task, method, None, status="failed", reason=reason, **identity)
                        jobs.append(replace(failed, method=key))
                        continue
                    few = 0.3 if budget == 15000 else 0.0
                    theta = posterior(truth.y, noise, draws, width + 0.02 * repetition, blur + few)
                    took = seconds * (1 if budget == 15000 else 1.7) * (1 + 0.1 * repetition)
                    jobs.append(_job(task, key, method, truth, theta, budget, repetition, took))
        y_names = tuple(f"band{i}" for i in range(len(NAMES)))
        text = "functional parameters of tissue from camera bands"
        tasks.append(TaskInfo(task, 1, "gauss", {"snr": 10 / factor}, text, "Author 2016", parameters, y_names))
    return Results(
        suite="tissue", title="Fourteen methods on tissue", description="Everything on 13 parameters.",
        measurements=measurements, draws=draws, tasks=tuple(tasks),
        labels={"prior": "Prior", "reference": "Exact reference"} | {key: m[1] for key, m in METHODS.items()},
        jobs=tuple(jobs), command="posterior-bench run tissue", environment={"torch": "2"}, published=(PUBLISHED,),
        remarks="**No network** reaches the reference; see `calibration_error/sO2`.\n\n- one\n- two <b>bold</b>",
    )  # fmt: skip


PUBLISHED = PublishedTable(
    task="tissue",
    title="Methods on multispectral images of tissue",
    source="Author et al. 2019, table 1",
    note="The medical data were never released: the order of the methods can be compared, values cannot.",
    columns=("MAP err sO2", "MAP err all", "MAP re-sim err", "Calibration err"),
    metrics=("map_error/sO2", "map_error/informed", "map_resimulation_error", "calibration_error/sO2"),
    rows=(
        ("NN + dropout", "dropout_nn", ("0.057±0.003", "0.56±0.01", "0.397±0.008", "1.91 %")),
        ("INN", "inn", ("0.041±0.002", "0.57±0.02", "0.327±0.007", "0.34 %")),
        ("INN, L_y + L_z only", "inn_ly_lz", ("0.066±0.003", "0.71±0.02", "0.506±0.010", "1.62 %")),
        ("INN, L_x only", "inn_lx", ("0.861±0.033", "1.70±0.02", "2.281±0.045", "3.20 %")),
        ("cVAE", "cvae", ("0.050±0.002", "0.74±0.02", "0.314±0.007", "2.19 %")),
        ("cVAE-IAF", "cvae_iaf", ("0.050±0.002", "0.74±0.03", "0.313±0.008", "1.40 %")),
        ("ABC", "abc_rejection", ("0.036±0.001", "0.54±0.02", "0.284±0.005", "0.90 %")),
        ("Simulation noise", None, ("-", "-", "0.129±0.001", "-")),
    ),
)


def _truth(measurements: int, draws: int, noise: Tensor, parameters: tuple[Parameter, ...]) -> Truth:
    theta = torch.randn(measurements, len(noise))
    y = theta + noise * torch.randn_like(theta)

    def simulate(theta: Tensor) -> Tensor:
        return theta + noise * torch.randn_like(theta)

    prior = Independent(Normal(torch.zeros(len(noise)), torch.ones(len(noise))), 1)
    reference = posterior(y[:20], noise, draws, 1.0, 0.0)
    return Truth(theta, y, prior, prior.sample((500,)), parameters, simulate, reference)


def _job(
    task: str, key: str, method: str, truth: Truth, theta: Tensor, budget: int, repetition: int, seconds: float
) -> JobResult:
    metrics = (Calibration(), Skill(), MAPEstimate(), Resimulation(), PosteriorMMD())
    scores = evaluate(Draws(theta), truth, metrics)
    per = {s.metric: s.per_measurement for s in scores if s.per_measurement is not None}
    extra = {f"{s.metric}/{name}": value for s in scores for name, value in s.artefacts.items()}
    step = torch.arange(1, 21) * 100
    history = {"step": step, "fit": 5 / step, "held_out": 6 / step + 0.01} if budget and seconds > 1 else {}
    kept = slice(0, 8)
    artefact = Artefact(theta[:, kept], truth.theta[kept], truth.y[kept], truth.prior_draws, per, extra, history)
    made = make_job(task, method, scores, artefact, budget=budget, repetition=repetition)
    job = f"{task}{key}{budget}{repetition}".encode().hex()[-16:]
    return replace(made, job=job, method=key, cost=Cost(seconds, 1e5, 1.0, 300.0, 250000, versions={"torch": "2"}))


def main() -> None:
    """Write the report: ``python crowded_results.py FOLDER [MEASUREMENTS DRAWS]``."""
    from posterior_bench.reporting import write_report

    torch.set_num_threads(1)
    write_report(crowded_results(*(int(word) for word in sys.argv[2:])), Path(sys.argv[1]))


if __name__ == "__main__":
    main()
