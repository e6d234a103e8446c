"""The entries of a suite with their plug-ins: whose fits a task takes, and which other method a method is around."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from .. import registry
from ..contracts import HasLikelihood, HasReference, Method, Simulator
from ..records import Need, Task
from ..runtime import digest
from .given import GivenTestSet, read_test_set
from .suite import OF_A_FIT, MethodEntry, Suite, SuiteError, TaskEntry

OBSERVATIONS = 10
"""Measurements for which a method that is fitted for one of them is fitted, where its entry does not say: as many as
the published benchmark has (Lueckmann et al. 2021, arXiv:2101.04964)."""


def address(plugin: Simulator | Method, source: str, options: Mapping[str, Any]) -> list[object]:
    """What identifies a plug-in with its options and its code; a JSON-like list."""
    name = source.rpartition(":")[2] if ".py:" in source else source
    full = dataclasses.asdict(plugin) if dataclasses.is_dataclass(plugin) else dict(options)
    return [name, plugin.spec.name, plugin.spec.version, full, registry.source_hash(type(plugin))]


@dataclass(frozen=True, eq=False)
class PlannedTask:
    """A task of a suite.

    Args:
        entry: as the suite has it; where it takes the fits of another, completed by what determines those.
        task: the same with its simulators.
        fit_of: the task whose fits it takes.
        given: its test set, where that is a file.
    """

    entry: TaskEntry
    task: Task
    fit_of: PlannedTask | None = None
    given: GivenTestSet | None = None

    @property
    def name(self) -> str:
        """Of the task."""
        return self.task.name

    @cached_property
    def where(self) -> list[object]:
        """The address of the simulator."""
        return address(self.task.simulator, self.entry.simulator, self.entry.options)

    @cached_property
    def made_by(self) -> list[object]:
        """The address of the process behind the measurements."""
        reality = self.entry.reality
        return self.where if reality is None else address(self.task.process, reality.simulator, reality.options)

    @property
    def has_reference(self) -> bool:
        """Whether there are exact draws to compare with."""
        own = isinstance(self.task.process, HasReference) or (self.given is not None and self.given.draws > 0)
        return bool(self.engine) or (bool(self.entry.reference) and own)

    def at_most(self, count: int) -> int:
        """``count`` measurements of the test set, or as many as its file holds."""
        return count if self.given is None else min(count, self.given.measurements)

    @cached_property
    def engine(self) -> str:
        """The version of the reference engine: a hash of its source and recipe; empty where it is not asked.

        Raises:
            SuiteError: where the engine cannot work.
        """
        entry, process = self.entry, self.task.process
        if entry.reference != "engine":
            if entry.recipe:
                raise SuiteError(
                    f'tasks: {self.name}: recipe is given without reference = "engine"; expected both, or neither: it '
                    "says how the engine finds the reference"
                )
            return ""
        if self.given is not None and self.given.draws:
            raise SuiteError(
                f'tasks: {self.name}: reference = "engine" and {self.given.path} holds draws of the posteriors; '
                "expected one of the two: leave out the key, or the tensor reference of the file"
            )
        if entry.reality is not None or not isinstance(process, HasLikelihood):
            found = f"{process.spec.name!r} has no likelihood"
            if entry.reality is not None:
                found = f"reality {entry.reality.simulator!r}"
            raise SuiteError(
                f'tasks: {entry.name or entry.simulator}: reference = "engine" and {found}; expected measurements of a '
                "simulator with a log_likelihood"
            )
        from ..reference import settings_of  # on first use: most suites need no engine

        try:
            settings = dataclasses.asdict(settings_of(entry.recipe))
        except (TypeError, ValueError) as error:
            raise SuiteError(f"tasks: {self.name}: recipe: {error}") from error
        folder = Path(str(files("posterior_bench"))) / "reference"
        source = [(path.name, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.py"))]
        return digest(source, settings)[:8]


@dataclass(frozen=True, eq=False)
class PlannedMethod:
    """A method of a suite, under the name by which the suite reports it; ``base`` is the one that it is around."""

    label: str
    entry: MethodEntry
    method: Method
    base: PlannedMethod | None = None

    @property
    def needs(self) -> frozenset[Need]:
        """What the method asks of a problem."""
        return self.method.spec.needs

    @property
    def trains(self) -> bool:
        """Whether its posterior depends on simulations, its own or those of the method that it is around."""
        return self.method.spec.trains or self.base is not None

    @cached_property
    def how(self) -> list[object]:
        """The address of the method."""
        return address(self.method, self.entry.method, self.entry.options)

    @cached_property
    def observations(self) -> Sequence[int | None]:
        """The measurements that get a job of their own; ``(None,)`` for one job on all of them.

        Raises:
            SuiteError: where the entry limits the wrong ones.
        """
        one_each = Need.OBSERVATION in self.needs
        wrong, right = ("measurements", "observations") if one_each else ("observations", "measurements")
        if getattr(self.entry, wrong) is not None:
            fitted = "for each measurement anew" if one_each else "once for all measurements"
            raise SuiteError(
                f"methods: {self.label}: {wrong} was given and the method is fitted {fitted}; give {right} instead"
            )
        return range(self.entry.observations or OBSERVATIONS) if one_each else (None,)

    @property
    def labels_at_most(self) -> int | None:
        """The method's option ``labels``, where it has one: the labelled measurements that it learns from at most."""
        found = {f.name for f in dataclasses.fields(self.method)} if dataclasses.is_dataclass(self.method) else ()
        value = getattr(self.method, "labels", None) if "labels" in found else None
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def runs_on(self, task: PlannedTask) -> bool:
        """Whether the suite asks for it there.

        Raises:
            SuiteError: where that cannot be.
        """
        tasks = self.entry.tasks
        if tasks is None and self.base is not None:
            tasks = self.base.entry.tasks
        if tasks is not None and task.name not in tasks:
            return False
        if task.fit_of is not None and Need.OBSERVATION in self.needs:
            raise SuiteError(
                f"methods: {self.label}: it is fitted for each measurement anew, and task {task.name!r} takes the fits "
                f"of {task.fit_of.name!r}; give the entry tasks = [...] without it"
            )
        return True

    def cells(self, suite: Suite, entry: TaskEntry) -> tuple[tuple[int, int], ...]:
        """The budgets of a task, each with its number of repetitions; budget 0 where nothing is trained."""
        most = self.entry.repetitions
        if self.base is not None:
            return tuple((budget, most or count) for budget, count in self.base.cells(suite, entry))
        cells = suite.cells(entry) if self.trains else ((0, 1),)
        return tuple((budget, min(count, most or count)) for budget, count in cells)


def tasks_of(suite: Suite) -> list[PlannedTask]:
    """The tasks of a suite in its order.

    Raises:
        SuiteError: where a simulator is unknown or refuses its options, two share a name, ``fit_of`` fits none, or the
            file of a test set cannot be one.
    """
    own = {place: _task(entry) for place, entry in enumerate(suite.tasks) if entry.fit_of is None}
    known = {task.name: task for task in own.values()}
    tasks = [own.get(place) or _fitted_elsewhere(entry, known, suite) for place, entry in enumerate(suite.tasks)]
    _distinct(task.name for task in tasks)
    return tasks


def methods_of(suite: Suite) -> list[PlannedMethod]:
    """The methods of a suite in its order.

    Raises:
        SuiteError: where a method is unknown or refuses its options, two share a name, or ``around`` fits none.
    """
    alone = []
    for entry in suite.methods:
        method: Method = _build("methods", entry.method, entry.options)
        alone.append(PlannedMethod(entry.name or method.spec.name, entry, method))
    _distinct(method.label for method in alone)
    known = {method.label: method for method in alone}
    return [dataclasses.replace(method, base=_base(method, known)) for method in alone]


def _task(entry: TaskEntry, fit_of: PlannedTask | None = None) -> PlannedTask:
    simulator: Simulator = _build("simulators", entry.simulator, entry.options)
    process = simulator
    if entry.reality is not None:
        process = _build("simulators", entry.reality.simulator, entry.reality.options)
    name = entry.name or simulator.spec.name
    task = Task(name, simulator, process, unlabelled=entry.unlabelled, labels=entry.labels)
    given = None
    if entry.test_set is not None:
        try:
            given = read_test_set(entry.test_set, process)
        except SuiteError as error:
            raise SuiteError(f"tasks: {name}: test_set: {error}") from error
    return PlannedTask(entry, task, fit_of, given)


def _fitted_elsewhere(entry: TaskEntry, known: Mapping[str, PlannedTask], suite: Suite) -> PlannedTask:
    """A task that takes the fits of one of those ``known``, which have fits of their own."""
    other = known.get(str(entry.fit_of))
    if other is None:
        further = {task.name: task.fit_of for task in suite.tasks if task.fit_of is not None}
        if entry.fit_of in further:
            found = f"{entry.fit_of!r}, which takes the fits of {further[entry.fit_of]!r}"
            raise SuiteError(f"tasks: {entry.name}: fit_of is {found}; expected a task with fits of its own")
        raise SuiteError(f"tasks: {entry.name}: fit_of: {registry.unknown('task', str(entry.fit_of), known)}")
    taken = {key: getattr(other.entry, key) for key in OF_A_FIT}
    if entry.milliseconds is None:
        taken["milliseconds"] = other.entry.milliseconds
    return _task(entry.model_copy(update=taken), fit_of=other)


def _base(method: PlannedMethod, known: Mapping[str, PlannedMethod]) -> PlannedMethod | None:
    """The method that another is around, ``None`` for one that is around none."""
    around = method.entry.around
    place = f"methods: {method.label}: around"
    if Need.POSTERIOR not in method.needs:
        if around is not None:
            raise SuiteError(f"{place} was given and the method starts from no other's posterior; leave it out")
        return None
    others = [name for name, other in known.items() if Need.POSTERIOR not in other.needs]
    if around is None:
        raise SuiteError(
            f"{place} is missing and the method starts from another's posterior; name its entry: {', '.join(others)}"
        )
    if around not in known:
        raise SuiteError(f"{place}: {registry.unknown('method', around, others)}")
    if Need.POSTERIOR in known[around].needs:
        raise SuiteError(f"{place} is {around!r}, which is itself around another; expected a method that stands alone")
    if Need.OBSERVATION in known[around].needs:
        raise SuiteError(f"{place} is {around!r}, which is fitted for each measurement anew; expected one fit for all")
    return known[around]


def _build(group: registry.Group, source: str, options: Mapping[str, Any]) -> Any:
    try:
        return registry.build(group, source, options)
    except registry.PluginError as error:
        raise SuiteError(f"{'tasks' if group == 'simulators' else group}: {error}") from error


def _distinct(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SuiteError(f"two entries are called {name!r}; give one of them a name of its own")
        seen.add(name)
