"""Suite files: tasks x methods x budgets x repetitions, in TOML, checked before anything runs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints, ValidationError, model_validator

from .. import registry
from ..records import NAME

Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
Budget = Annotated[int, Field(ge=1)]
Repetitions = Annotated[int, Field(ge=1)]


class SuiteError(Exception):
    """A suite file cannot be used; the message says where, what was found and the likely cure."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Entry):
    """A simulator by registered name or ``file.py:Class``, with its options."""

    simulator: str
    options: dict[str, Any] = {}


OF_A_FIT = ("simulator", "options", "unlabelled", "labels", "budgets", "repetitions")
"""Keys of a task that a fit on it depends on, apart from the reality that it may learn from."""


class TaskEntry(_Entry):
    """One task of a suite.

    Args:
        simulator: registered name, or ``file.py:Class``.
        fit_of: name of another task whose fits are scored here, on this task's own measurements: nothing is trained
            for it, and what determines a fit (``OF_A_FIT``) is that task's. It needs a name, and is given a
            ``reality`` where its measurements are not the simulator's, or a ``test_set``.
        options: of the simulator.
        name: of the task; by default the simulator's.
        budgets: numbers of simulations; by default the suite's.
        repetitions: fits a cell, one number or one for each budget; by default the suite's.
        reality: the process behind the measurements, where it is another.
        test_set: a file (safetensors) with the test set, which is else simulated: ``theta`` (T, D), ``y``
            (T, *y_shape) and, where they are known, ``reference`` (T, n, D), draws of the exact posteriors. Its first
            measurements are taken, at most as many as the suite asks for; the same holds of its draws.
        reference: whether to compare with the simulator's reference, where it has one: not where that is inexact. With
            ``"engine"`` the reference is found from the likelihood, see ``posterior_bench.reference``. Where the file
            of the test set holds draws, these are the reference.
        recipe: of the engine's reference: settings that differ from ``posterior_bench.reference.Settings``.
        unlabelled: measurements of the reality, without their parameters, for methods that learn from such.
        labels: pairs of parameters and measurements of the reality, for methods that learn from such; others of them
            for each repetition.
        dense_measurements: in place of the suite's, where scores of many draws are dearer than elsewhere.
        milliseconds: a simulation takes on one core, for the time estimate alone.
    """

    simulator: str = ""
    fit_of: Name | None = None
    options: dict[str, Any] = {}
    name: Name | None = None
    budgets: tuple[Budget, ...] | None = None
    repetitions: Repetitions | tuple[Repetitions, ...] | None = None
    reality: Source | None = None
    test_set: str | None = None
    reference: StrictBool | Literal["engine"] = True
    recipe: dict[str, Any] = {}
    unlabelled: int = Field(default=0, ge=0)
    labels: int = Field(default=0, ge=0)
    dense_measurements: int | None = Field(default=None, ge=0)
    milliseconds: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _trained_on_its_own_or_on_another(self) -> TaskEntry:
        if self.fit_of is None:
            if not self.simulator:
                raise ValueError("simulator is missing; expected one, or fit_of with the name of another task")
            return self
        given = [key for key in OF_A_FIT if key in self.model_fields_set]
        if given:
            found = f"found fit_of together with {', '.join(given)}"
            raise ValueError(f"{found}; what determines a fit is the other task's: leave it out here")
        if self.name is None:
            raise ValueError("name is missing; a task that takes the fits of another needs one of its own")
        return self


class MethodEntry(_Entry):
    """One method of a suite.

    Args:
        method: registered name, or ``file.py:Class``.
        options: of the method.
        name: under which the suite reports it; needed where a method stands twice. By default the method's.
        tasks: names of the tasks it runs on; by default all, or those of the entry that it is ``around``.
        around: name of another entry of methods, for a method that starts from another's posterior. Its repetition r
            starts from the fit of repetition r modulo the other's repetitions, and learns from the same simulations.
        repetitions: fits a cell at most, where those of the task would be more than this method deserves. Of a method
            around another: the fits a cell, which may be more; by default as many as the other has.
        measurements: so many of the same test set, the first ones, are asked of it and scored, where all are too dear;
            by default all.
        observations: so many measurements, the first of the test set, each get a fit and a job of their own; for
            methods that are fitted for one measurement. By default 10.
        seconds: a job takes on one core, by task name, one number or one for each budget; for the time estimate, and
            so that the longest begin first.
    """

    method: str
    options: dict[str, Any] = {}
    name: Name | None = None
    tasks: tuple[str, ...] | None = None
    around: Name | None = None
    repetitions: Repetitions | None = None
    measurements: int | None = Field(default=None, ge=1)
    observations: int | None = Field(default=None, ge=1)
    seconds: dict[str, float | tuple[float, ...]] = {}

    def seconds_at(self, task: str, place: int) -> float | None:
        """Seconds of a job of ``task`` at its budget number ``place``, as far as the file tells."""
        found = self.seconds.get(task)
        return found if found is None or isinstance(found, float) else dict(enumerate(found)).get(place)


class PublishedRow(_Entry):
    """One row of a published table: its label, our method it corresponds to, and the cells as published."""

    label: str
    method: str | None = None
    values: tuple[str, ...]


class PublishedEntry(_Entry):
    """A table from the literature, printed beside the suite's own; see ``results.PublishedTable``.

    ``metrics`` names our metric of each column, ``""`` where there is none; ``budget`` is the one whose results it is
    compared with, by default each of the task's.
    """

    task: str
    budget: Budget | None = None
    title: str
    source: str
    note: str
    columns: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[PublishedRow, ...]

    @model_validator(mode="after")
    def _rectangular(self) -> PublishedEntry:
        for what, values in [("metrics", self.metrics), *((row.label, row.values) for row in self.rows)]:
            if len(values) != len(self.columns):
                raise ValueError(f"{what} has {len(values)} entries; expected one a column, {len(self.columns)}")
        return self


class Suite(_Entry):
    """What is compared with what, and how thoroughly.

    Args:
        name: of the suite, and of the folder of its report.
        measurements: T, size of the test set; fewer where a task's file has fewer, and then of all that is cut from it.
        draws: n, posterior draws a measurement.
        budgets: numbers of simulations to learn from.
        repetitions: fits a cell, each on simulations of its own; one number or one for each budget.
        reference_measurements: so many of the test set are compared with the reference.
        reference_draws: exact draws for each of them.
        dense_measurements: S, so many of the test set, the first ones, get many more draws, for scores that ask for
            thousands; 0 for none.
        dense_draws: m, draws for each of these, exact ones too where there is a reference.
        timeout_minutes: a job that takes longer is a failure.
        remarks: what is to be said of the outcome, Markdown; printed with the report.
        tasks, methods: the entries; every method runs on every task unless it names some.
        published: tables from the literature to stand beside.
    """

    name: Name
    title: str = ""
    description: str = ""
    measurements: int = Field(default=1000, ge=20)
    draws: int = Field(default=500, ge=20)
    budgets: tuple[Budget, ...] = (10_000,)
    repetitions: Repetitions | tuple[Repetitions, ...] = 1
    reference_measurements: int = Field(default=200, ge=1)
    reference_draws: int = Field(default=1000, ge=2)
    dense_measurements: int = Field(default=0, ge=0)
    dense_draws: int = Field(default=10_000, ge=2)
    timeout_minutes: float = Field(default=60.0, gt=0)
    remarks: str = ""
    tasks: tuple[TaskEntry, ...] = Field(min_length=1)
    methods: tuple[MethodEntry, ...] = Field(min_length=1)
    published: tuple[PublishedEntry, ...] = ()

    @model_validator(mode="after")
    def _repetitions_fit_budgets(self) -> Suite:
        for task in self.tasks:
            self.cells(task)
        return self

    @model_validator(mode="after")
    def _no_more_than_the_test_set(self) -> Suite:
        asked: list[tuple[str, int | None]] = [("dense_measurements", self.dense_measurements)]
        for task in self.tasks:
            asked.append((f"{task.name or task.simulator}: dense_measurements", task.dense_measurements))
        for entry in self.methods:
            label = entry.name or entry.method
            asked += [(f"{label}: measurements", entry.measurements), (f"{label}: observations", entry.observations)]
        for what, count in asked:
            if count is not None and count > self.measurements:
                raise ValueError(f"{what} is {count}; expected at most the suite's measurements, {self.measurements}")
        return self

    def cells(self, task: TaskEntry) -> tuple[tuple[int, int], ...]:
        """The budgets of a task, each with its number of repetitions."""
        budgets = task.budgets or self.budgets
        found = self.repetitions if task.repetitions is None else task.repetitions
        repetitions = (found,) * len(budgets) if isinstance(found, int) else found
        if len(repetitions) != len(budgets):
            raise ValueError(
                f"task {task.name or task.simulator}: {len(repetitions)} repetitions for {len(budgets)} budgets; "
                "expected one number, or one for each budget"
            )
        return tuple(zip(budgets, repetitions, strict=True))


def shipped() -> dict[str, Path]:
    """The suites that ship with the package, by name."""
    folder = files("posterior_bench") / "suites"
    return {p.stem: p for p in sorted(Path(str(folder)).glob("*.toml"))}


def load_suite(reference: str) -> Suite:
    """Read a suite by the name of a shipped one or by the path of a TOML file.

    A plug-in given as ``file.py:Class`` and the file of a test set are looked for from the suite's own folder.

    Raises:
        SuiteError: with the nearest name or key, and with the place in the file.
    """
    known = shipped()
    if reference in known:
        path = known[reference]
    elif reference.endswith(".toml"):
        path = Path(reference)
        if not path.is_file():
            raise SuiteError(f"there is no file {path}")
    else:
        raise SuiteError(registry.unknown("suite", reference, known) + "; or the path of a .toml file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path} is not valid TOML: {error}") from error
    for entry in [*_tables(content, "tasks"), *_tables(content, "methods")]:
        for table in (entry, entry.get("reality")):
            if isinstance(table, dict):
                _resolve(table, path.resolve().parent)
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        raise SuiteError(f"{path}:\n" + "\n".join(f"  {line}" for line in _explain(error))) from error


def _tables(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = content.get(key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _resolve(table: dict[str, Any], folder: Path) -> None:
    """Make paths absolute, in ``file.py:Class`` too: a path in a suite is meant from the suite's own folder."""
    for key in ("simulator", "method"):
        value = table.get(key)
        if isinstance(value, str) and ".py:" in value:
            table[key] = str(folder / Path(value).expanduser())
    if isinstance(table.get("test_set"), str):
        table["test_set"] = str(folder / Path(table["test_set"]).expanduser())


def _explain(error: ValidationError) -> Iterator[str]:
    models: dict[str, type[BaseModel]] = {"tasks": TaskEntry, "methods": MethodEntry, "reality": Source}
    for item in error.errors():
        place = [str(part) for part in item["loc"]]
        where = ".".join(place)
        if item["type"] == "extra_forbidden":
            parents = [part for part in place[:-1] if part in models]
            model = models[parents[-1]] if parents else Suite
            yield f"{'.'.join(place[:-1]) or 'top level'}: {registry.unknown('key', place[-1], model.model_fields)}"
        else:
            found = "" if item["type"] in ("missing", "value_error") else f" (found {item['input']!r})"
            yield f"{where or 'suite'}: {item['msg']}{found}"
