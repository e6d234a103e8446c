"""What the README tells a new user to type works as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def block(language: str, holding: str) -> str:
    """The code block of a language that holds some text."""
    found = [code for code in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if holding in code]
    assert len(found) == 1, f"{len(found)} {language} blocks hold {holding!r}"
    return found[0]


@pytest.fixture
def folder(tmp_path):
    """A user's folder with the README's simulator and suite."""
    (tmp_path / "my_pendulum.py").write_text(block("python", "class Pendulum"), encoding="utf-8")
    (tmp_path / "my_suite.toml").write_text(block("toml", "my_pendulum.py"), encoding="utf-8")
    return tmp_path


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("posterior-bench"))
    environment = os.environ | {"POSTERIOR_BENCH_STORE": str(folder / "store"), "COLUMNS": "160"}
    return subprocess.run([program, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_simulator_keeps_the_contract(folder):
    done = call(folder, "check", "my_pendulum.py:Pendulum")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_the_suite_runs(folder):
    planned = call(folder, "run", "my_suite.toml", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "5 jobs" in planned.stdout
    done = call(folder, "run", "my_suite.toml", "--workers", "1", "--only", "*/prior", "--only", "*/abc_rejection")
    assert done.returncode == 0, done.stderr
    assert (folder / "store" / "reports" / "pendulum" / "index.html").exists()


def test_the_commands_of_the_table_exist():
    commands = set(re.findall(r"`posterior-bench (\w+)", README))
    listed = subprocess.run(
        [str(Path(sys.executable).with_name("posterior-bench")), "--help"], capture_output=True, text=True
    ).stdout
    assert commands
    assert all(command in listed for command in commands)


def test_the_python_example_names_what_there_is():
    code = block("python", "write_report")
    found: dict[str, object] = {}
    for line in code.splitlines():
        if line.startswith("from "):
            exec(line, found)  # noqa: S102 - our own README's imports
    assert {"collect", "plan", "run", "Store", "load_suite", "write_report"} <= set(found)
