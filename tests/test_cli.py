from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOYS = Path(__file__).parent / "running"


def call(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, in another folder than the source's."""
    program = Path(sys.executable).with_name("posterior-bench")
    store = {"POSTERIOR_BENCH_STORE": str(cwd / "store"), "COLUMNS": "200"}
    return subprocess.run(
        [str(program), *map(str, arguments)],
        cwd=cwd,
        env=os.environ | store | environment,
        capture_output=True,
        text=True,
    )


def test_list_names_what_is_installed(tmp_path):
    out = call("list", cwd=tmp_path).stdout
    for name in ("tissue", "inverse_kinematics", "inn_likelihood", "abc_rejection", "calibration", "quick"):
        assert name in out


def test_a_dry_run_prints_jobs_and_time_and_runs_none(tmp_path):
    done = call("run", "quick", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0
    assert "about" in done.stdout
    assert "34 jobs, 0 of them done" in done.stdout
    assert not (tmp_path / "store").exists()


def test_run_report_and_show_from_a_suite_of_the_users_own(tmp_path):
    done = call("run", TOYS / "toys.toml", "--workers", 1, "--only", "gaussian/*", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "store" / "reports" / "toys" / "index.html").exists()

    published = call("report", TOYS / "toys.toml", "--publish", "--only", "gaussian/*", cwd=tmp_path)
    assert published.returncode == 0, published.stderr
    rows = sorted((tmp_path / "reports" / "toys" / "rows").glob("*/*/*.jsonl"))
    assert len(rows) == 4

    shown = call("show", rows[0].stem[:8], cwd=tmp_path)
    assert "energy_skill" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "quik"], "did you mean 'quick'"),
        (["run", "quick", "--only", "nobody"], "no job fits nobody"),
        (["run", "quick", "--device", "abacus"], "abacus"),
        (["report", "quick"], "nothing of suite 'quick' is done"),
        (["show", "0000"], "0 jobs"),
        (["show", "../../etc"], "characters a name cannot have"),
        (["check", "tisue"], "did you mean 'tissue'"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(tmp_path, arguments, message):
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_failed_jobs_show_in_the_exit_code_and_the_text(tmp_path):
    suite = tmp_path / "suite.toml"
    suite.write_text(
        f"""
        name = "broken"
        measurements = 40
        draws = 30
        budgets = [200]
        [[tasks]]
        simulator = "{TOYS}/toys.py:Raises"
        [[tasks]]
        simulator = "{TOYS}/toys.py:Gaussian"
        [[methods]]
        method = "prior"
        """,
        encoding="utf-8",
    )
    done = call("run", suite, "--workers", 1, cwd=tmp_path)
    assert done.returncode == 1
    assert "the pump stands still" in done.stderr
    assert "the pump stands still" in (tmp_path / "store" / "reports" / "broken" / "index.html").read_text("utf-8")


def test_check_says_what_a_plugin_breaks(tmp_path):
    good = call("check", f"{TOYS}/toys.py:Gaussian", cwd=tmp_path)
    assert good.returncode == 0, good.stdout
    bad = call("check", f"{TOYS}/toys.py:WrongShape", cwd=tmp_path)
    assert bad.returncode == 1
    assert "broken" in bad.stdout


def test_a_users_folder_called_simulators_breaks_nothing(tmp_path):
    package = tmp_path / "simulators"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('not yours')", encoding="utf-8")
    assert call("run", "quick", "--dry-run", cwd=tmp_path).returncode == 0


def test_where_a_package_is_shadowed_the_error_names_the_file(tmp_path):
    package = tmp_path / "simulators"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    code = (
        "import sys; sys.path.insert(0, '.'); "
        "from posterior_bench import registry; registry.load('simulators', 'tissue')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert f"{package}/__init__.py is imported in its place" in done.stderr
