"""A stranger's distribution, installed beside this one, enters by its entry points and passes the checks."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

PLUGIN = Path(__file__).parents[1] / "plugin"

SCRIPT = """
from posterior_bench import registry
from posterior_bench.checks import check_method, check_metric, check_simulator

assert "decay" in registry.names("simulators")
found = {
    "simulators": check_simulator(registry.build("simulators", "decay", {"times": 5})),
    "methods": check_method(registry.build("methods", "linear_regression")),
    "metrics": check_metric(registry.build("metrics", "interval_width")),
}
for group, findings in found.items():
    assert len(findings) >= 7, (group, findings)
    assert all(finding.ok for finding in findings), (group, [f for f in findings if not f.ok])
assert registry.source_hash(registry.load("simulators", "decay"))
print("passed", sum(map(len, found.values())))
"""

CLASH = """
from posterior_bench import registry
try:
    registry.load("simulators", "decay")
except registry.PluginError as error:
    print(error)
"""


def install(folder: Path, name: str = "decay_lab") -> None:
    """What pip leaves of a distribution's metadata, made from its pyproject.toml."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    info = folder / f"{name}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def run(script: str, *folders: Path) -> str:
    path = os.pathsep.join(map(str, folders))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_is_found_and_passes(tmp_path: Path) -> None:
    install(tmp_path)
    assert run(SCRIPT, tmp_path, PLUGIN / "src").startswith("passed 3")


def test_entry_points_name_what_is_there() -> None:
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    assert set(project["entry-points"]) == {f"posterior_bench.{g}" for g in ("simulators", "methods", "metrics")}
    for points in project["entry-points"].values():
        for value in points.values():
            module, _, cls = value.partition(":")
            source = PLUGIN / "src" / Path(*module.split(".")).with_suffix(".py")
            assert f"class {cls}(" in source.read_text()


def test_a_file_that_shadows_the_package_is_named(tmp_path: Path) -> None:
    install(tmp_path)
    shadow = tmp_path / "elsewhere"
    shadow.mkdir()
    (shadow / "decay_lab.py").write_text("")
    message = run(CLASH, shadow, tmp_path)
    assert str(shadow / "decay_lab.py") in message


def test_two_distributions_may_not_register_one_name_for_different_things(tmp_path: Path) -> None:
    install(tmp_path)
    install(tmp_path, "other_lab")
    points = tmp_path / "other_lab-0.1.0.dist-info" / "entry_points.txt"
    points.write_text(points.read_text().replace("decay_lab.decay", "other_lab.decay"))
    message = run(CLASH, tmp_path, PLUGIN / "src")
    assert "two distributions register the simulator 'decay'" in message
