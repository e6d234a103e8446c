"""Names to plug-ins: what is found, what is refused, and what the refusal says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from posterior_bench import Method, Metric, Simulator, registry
from posterior_bench.registry import PluginError, source_hash

SOURCE = """
from dataclasses import dataclass
from posterior_bench.checks import LinearGaussian
import helper_of_mine

@dataclass(frozen=True)
class Mine(LinearGaussian):
    strength: float = 1.0

    def __post_init__(self):
        if self.strength < 0:
            raise ValueError("strength must not be negative")

class NotAPlugin:
    pass
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "helper_of_mine.py").write_text("VALUE = 1\n")
    path = tmp_path / "my_simulator.py"
    path.write_text(SOURCE)
    before = list(sys.path)
    yield path
    sys.path[:] = before
    for name in [n for n in sys.modules if n == "helper_of_mine" or n.startswith("posterior_bench_user_")]:
        del sys.modules[name]


def test_ours_are_found_by_their_entry_points() -> None:
    assert {"inverse_kinematics", "tissue"} <= set(registry.names("simulators"))
    assert {"abc_rejection", "prior", "reference"} <= set(registry.names("methods"))
    assert issubclass(registry.load("simulators", "inverse_kinematics"), Simulator)
    assert registry.build("methods", "abc_rejection", {"accept": 10}).accept == 10


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, name) for group in ("simulators", "methods", "metrics") for name in registry.names(group)],
)
def test_every_plugin_is_registered_under_its_own_name(group: registry.Group, name: str) -> None:
    plugin = registry.build(group, name)
    assert isinstance(plugin, {"simulators": Simulator, "methods": Method, "metrics": Metric}[group])
    if group != "metrics":  # one metric makes scores of several names
        assert plugin.spec.name == name


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"unknown simulator 'invers_kinematics'; did you mean 'inverse_kinematics'"):
        registry.load("simulators", "invers_kinematics")
    with pytest.raises(PluginError, match=r"unknown method 'zzz'. Known: abc_re"):
        registry.load("methods", "zzz")


def test_an_unknown_option_is_answered_with_those_that_are() -> None:
    with pytest.raises(PluginError, match=r"did you mean 'quantile'\? Known: accept, quantile"):
        registry.build("methods", "abc_rejection", {"quantil": 0.1})


def test_a_refused_value_is_passed_on() -> None:
    with pytest.raises(PluginError, match=r"abc_rejection cannot be made with options .* accept is 0; expected 1"):
        registry.build("methods", "abc_rejection", {"accept": 0})


def test_a_users_file_is_loaded_by_its_path(file: Path) -> None:
    position = len(sys.path)
    simulator = registry.build("simulators", f"{file}:Mine", {"strength": 2.0})
    assert simulator.strength == 2.0
    assert registry.load("simulators", f"{file}:Mine") is type(simulator)  # imported once
    assert sys.path.index(str(file.parent)) == position  # appended, never first
    assert registry.group_of(f"{file}:Mine") == "simulators"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere.py:Mine", "there is no file"),
        ("my_simulator.py:Min", "did you mean 'Mine'"),
        ("my_simulator.py:NotAPlugin", "expected a class that derives from Simulator"),
        ("broken.py:Mine", "fails on import: ZeroDivisionError"),
    ],
)
def test_what_a_users_file_lacks_is_said(file: Path, reference: str, message: str) -> None:
    (file.parent / "broken.py").write_text("1 / 0\n")
    with pytest.raises(PluginError, match=message):
        registry.load("simulators", str(file.parent / reference))


def test_hash_follows_the_source() -> None:
    first = source_hash(registry.load("methods", "abc_rejection"))
    assert len(first) == 16
    assert first == source_hash(registry.load("methods", "abc_rejection"))
    assert first != source_hash(registry.load("methods", "prior"))


def test_an_edited_file_has_another_hash(file: Path) -> None:
    before = source_hash(registry.load("simulators", f"{file}:Mine"))
    file.write_text(SOURCE.replace("= 1.0", "= 2.0"))
    assert source_hash(registry.load("simulators", f"{file}:Mine")) != before
