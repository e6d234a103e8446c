"""Names to plug-ins. Ours and a stranger's enter by the same door: entry points, imported on first use."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from .contracts import Method, Metric, Simulator
from .records import check_name

Group = Literal["simulators", "methods", "metrics"]
SHARED = frozenset(f"posterior_bench.{name}" for name in ("training", "maps", "priors", "dynamics"))
"""What of the core is part of a plug-in that imports it: its results depend on it."""

_KIND: dict[Group, type] = {"simulators": Simulator, "methods": Method, "metrics": Metric}


class PluginError(Exception):
    """A plug-in could not be found, imported or built; the message says which, where and the likely cure."""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not known, with the nearest one that is.

    >>> unknown("method", "abc_rejecton", ["abc_rejection", "inn"])
    "unknown method 'abc_rejecton'; did you mean 'abc_rejection'? Known: abc_rejection, inn"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {name!r}{hint} Known: {', '.join(names) or 'none'}"


def names(group: Group) -> dict[str, EntryPoint]:
    """The registered plug-ins of a group by name.

    Raises:
        PluginError: where two distributions register one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"posterior_bench.{group}"):
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise PluginError(
                f"two distributions register the {group[:-1]} {point.name!r}: {other.value} and {point.value}; "
                "uninstall one, or give one another name"
            )
        found[point.name] = point
    return found


def load(group: Group, name: str) -> type[Any]:
    """The class behind a registered name, or behind ``path/to/file.py:Class``.

    Raises:
        PluginError: with the nearest name, or with the file that shadows a plug-in's package.
    """
    if ".py:" in name:
        cls = _load_from_file(name)
    else:
        known = names(group)
        if name not in known:
            raise PluginError(unknown(group[:-1], name, known))
        cls = _load_entry_point(known[name])
    if not (isinstance(cls, type) and issubclass(cls, _KIND[group])):
        raise PluginError(f"{name!r} is {cls!r}; expected a class that derives from {_KIND[group].__name__}")
    return cls


def group_of(name: str) -> Group:
    """The group of a registered plug-in, or of the class in ``file.py:Class``.

    Raises:
        PluginError: where there is none, with the nearest name.
    """
    if ".py:" in name:
        cls = _load_from_file(name)
        fitting = [group for group, kind in _KIND.items() if isinstance(cls, type) and issubclass(cls, kind)]
        if not fitting:
            kinds = ", ".join(kind.__name__ for kind in _KIND.values())
            raise PluginError(f"{name!r} is {cls!r}; expected a class that derives from one of {kinds}")
        return fitting[0]
    known = {found: group for group in _KIND for found in names(group)}
    if name not in known:
        raise PluginError(unknown("plug-in", name, known))
    return known[name]


def build(group: Group, name: str, options: Mapping[str, object] | None = None) -> Any:
    """An instance of a plug-in with the given options.

    Raises:
        PluginError: where it takes no such option, with the nearest one that it takes, or refuses its value.
    """
    cls = load(group, name)
    options = dict(options or {})
    if dataclasses.is_dataclass(cls):
        fields = [field.name for field in dataclasses.fields(cls) if field.init]
        for key in options:
            if key not in fields:
                raise PluginError(f"{name}: {unknown('option', key, fields)}")
    try:
        instance = cls(**options)
    except (TypeError, ValueError) as error:
        raise PluginError(f"{name} cannot be made with options {options}: {error}") from error
    if hasattr(instance, "spec"):
        check_name(instance.spec.name, group[:-1])
    return instance


def source_hash(cls: type) -> str:
    """A hash (16 hex digits) of the source that defines a plug-in, so that an edited one never meets its old rows.

    Covers the class's module, what this imports from its own top-level package (from posterior_bench only the
    module's own folder, and what ``SHARED`` names), and the data files of a plug-in that is a folder.
    """
    start = sys.modules[cls.__module__]
    files: dict[str, Path] = {}
    _collect(start, files)
    folder = Path(_file(start)).parent
    if start.__name__.count(".") >= 2 or Path(_file(start)).name == "__init__.py":
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.suffix not in {".py", ".pyc"}:
                files[path.name] = path
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(name.encode() + b"\0" + files[name].read_bytes() + b"\0")
    return total.hexdigest()[:16]


def _collect(module: ModuleType, files: dict[str, Path]) -> None:
    if module.__name__ in files or not getattr(module, "__file__", None):
        return
    path = Path(_file(module))
    files[module.__name__] = path
    package = module.__name__ if path.name == "__init__.py" else module.__name__.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            wanted = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        else:
            continue
        for name in wanted:
            if name in sys.modules and _belongs(name, module.__name__):
                _collect(sys.modules[name], files)


def _belongs(name: str, to: str) -> bool:
    """Whether a module counts as source of the plug-in module ``to``."""
    if name in SHARED:
        return True
    own = name.split(".")
    if own[0] == "posterior_bench":
        return len(own) > 1 and own[:2] == to.split(".")[:2] and name != "posterior_bench"
    return len(own) > 1 and own[0] == to.split(".")[0]


def _file(module: ModuleType) -> str:
    if module.__file__ is None:
        raise PluginError(f"module {module.__name__!r} has no file; a plug-in must come from one")
    return module.__file__


def _load_entry_point(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        top = point.module.partition(".")[0]
        module = sys.modules.get(top)
        origin = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), None)
        homes = _homes(point, top)
        if origin and homes and not any(Path(origin).resolve().is_relative_to(home) for home in homes):
            message = (
                f"{point.name!r} should come from the package {top!r}, and {origin} is imported in its place; "
                "rename that file or folder, or run from another one"
            )
        else:
            message = f"{point.name!r} ({point.value}) cannot be imported: {type(error).__name__}: {error}"
        raise PluginError(message) from error


def _homes(point: EntryPoint, top: str) -> list[Path]:
    """Where the distribution of an entry point keeps its package ``top``: installed, or linked source."""
    if point.dist is None:
        return []
    homes = [Path(str(point.dist.locate_file(top))).resolve()]
    origin = json.loads(point.dist.read_text("direct_url.json") or "{}").get("url", "")
    if origin.startswith("file://"):
        homes.append(Path(url2pathname(urlsplit(origin).path)).resolve())
    return homes


def _load_from_file(reference: str) -> Any:
    text, _, attribute = reference.rpartition(":")
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise PluginError(f"there is no file {path}; expected FILE.py:CLASS")
    name = f"posterior_bench_user_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    module = sys.modules.get(name)
    if module is None:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise PluginError(f"{path} cannot be imported as Python")
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))  # last, so that a user's files never hide a package
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise PluginError(f"{path} fails on import: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == name]
        raise PluginError(f"{path}: {unknown('class', attribute, classes)}")
    return getattr(module, attribute)
