"""The layout that the package promises: who imports whom, how long a file is, what importing it loads."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("posterior_bench", "baselines", "simulators")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

LEVELS = (
    {"records"},
    {"contracts"},
    {"problem", "runtime", "priors", "dynamics", "maps", "training"},
    {"registry"},
    {"inn", "checks", "evaluation"},
    {"reference"},
    {"running"},
    {"reporting"},
    {"cli", "display", "__main__"},
)
"""What may import only what stands above it; parts of one level that are single files may import each other."""

LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}

PLUGINS = ("baselines", "simulators", "posterior_bench.inn")
OFFERED = {"posterior_bench", *(f"posterior_bench.{name}" for name in ("training", "priors", "dynamics", "runtime"))}
"""What a plug-in may import of the core."""


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Absolute names of the modules a file imports, those for type checkers alone left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if is_module(inner) else base


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(ROOT / "posterior_bench")], ids=relative)
def test_core_imports_only_what_stands_above_it(path: Path) -> None:
    module = module_of(path)
    own = module.split(".")[1] if "." in module else None
    for name in imports(path):
        top, *rest = name.split(".")
        assert top not in {"baselines", "simulators", "tests"}, f"{module} imports {name}"
        if top != "posterior_bench" or own is None or not rest or rest[0] == own:
            continue
        assert LEVEL[rest[0]] <= LEVEL[own], f"{module} imports {name}, which stands below it"
        if LEVEL[rest[0]] == LEVEL[own]:
            assert (ROOT / "posterior_bench" / f"{rest[0]}.py").is_file(), f"{module} imports its neighbour {name}"


@pytest.mark.parametrize("path", [p for p in FILES if module_of(p).startswith(PLUGINS)], ids=relative)
def test_plugins_import_the_public_names_and_never_each_other(path: Path) -> None:
    module = module_of(path)
    family = next(p for p in PLUGINS if module.startswith(p))
    for name in imports(path):
        if name.split(".")[0] not in PACKAGES:
            continue
        inside = family == "posterior_bench.inn" or module.count(".") > 1 or path.name == "__init__.py"
        mine = family if family == "posterior_bench.inn" else ".".join(module.split(".")[:2])
        assert name in OFFERED or (inside and name.startswith(mine)) or same_family(module, name), (
            f"{module} imports {name}"
        )


def same_family(module: str, other: str) -> bool:
    """Whether two baselines are of one family: their files share the word before the first underscore."""
    own, theirs = module.split("."), other.split(".")
    return own[0] == theirs[0] == "baselines" and own[1].split("_")[0] == theirs[1].split("_")[0]


def test_core_names_no_concrete_simulator_or_method() -> None:
    """Apart from the two anchors, ``prior`` and ``reference``, which every suite holds."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    concrete = {name for group in ("simulators", "methods") for name in points[f"posterior_bench.{group}"]}
    concrete -= {"prior", "reference"}
    assert len(concrete) >= 4
    for path in FILES:
        if module_of(path).startswith("posterior_bench") and not module_of(path).startswith("posterior_bench.inn"):
            strings = {
                node.value
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            assert not strings & concrete, f"{relative(path)} names {sorted(strings & concrete)}"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_file_is_short_enough(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{relative(path)} has {lines} lines; split it by noun"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_no_assert_pickle_or_eval_in_the_package(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Assert), f"line {node.lineno} asserts: raise, with a message"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec"}, f"line {node.lineno} calls {node.func.id}"
    assert not {"pickle", "dill", "cloudpickle", "joblib"} & {name.split(".")[0] for name in imports(path)}


def test_importing_the_package_is_light() -> None:
    """Importing zuko, and so sbi, switches torch's argument checks off; the others take seconds."""
    script = (
        "import sys, posterior_bench, posterior_bench.checks\n"
        "from torch.distributions import Distribution\n"
        "heavy = {'sbi', 'pyro', 'arviz', 'seaborn', 'zuko', 'matplotlib', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert Distribution._validate_args\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_rule_itself_can_fail() -> None:
    """Relative, absolute and in-function imports are all seen; those for type checkers are not."""
    path = ROOT / "posterior_bench" / "problem.py"
    assert set(imports(path)) >= {"posterior_bench.contracts", "posterior_bench.records", "torch"}
    assert "posterior_bench.contracts" not in set(imports(ROOT / "posterior_bench" / "records.py"))
    assert LEVEL["records"] < LEVEL["registry"] < LEVEL["cli"]
