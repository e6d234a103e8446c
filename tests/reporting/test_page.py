from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from gaussian_results import LABELS, without_tensors

from posterior_bench.reporting import write_report
from posterior_bench.reporting.page import report_looks
from posterior_bench.reporting.style import PALETTE
from posterior_bench.running.results import PublishedTable, Results

EVIL = "<script>alert('x')</script>\"&"


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def test_the_page_needs_nothing_else(folder: Path) -> None:
    page = _read(folder / "index.html")
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("data:image/", "#")), value
    assert "url(" not in (folder / "index.html").read_text(encoding="utf-8")


def test_contents_lead_somewhere_and_figures_are_told_in_words(folder: Path) -> None:
    page = _read(folder / "index.html")
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert {str(link)[1:] for link in links} <= set(ids)
    images = [a for tag, a in page.tags if tag == "img"]
    assert len(images) == len(list((folder / "figures").glob("*.svg"))) > 8
    assert all(len(str(a["alt"])) > 20 for a in images)
    assert page.text.count("Grey: where an exact posterior stays") == 4


def test_the_page_tells_failures_commands_and_versions(folder: Path, results: Results) -> None:
    page = _read(folder / "index.html")
    text = " ".join(page.text.split())
    assert "ValueError: no luck" in text
    assert "gauss does not offer luck" in text
    assert "Exact twin can be trusted" in text
    assert "Not to be trusted: Too narrow" in text
    for job in results.jobs:
        assert f"posterior-bench show {job.job}" in text
        assert job.command in text
    assert "torch 2" in text


def test_the_markdown_page_links_to_files_that_are_there(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 15
    for link in links:
        assert (folder / link).is_file(), link
    assert "ValueError: no luck" in text
    assert "[LaTeX]" not in text
    assert {p.suffix for p in (folder / "tables").iterdir()} == {".md", ".csv", ".tex"}


def test_a_method_has_one_colour_in_every_figure(folder: Path, results: Results) -> None:
    look = report_looks(results)
    shown = [look[key] for key in ("exact_twin", "too_narrow")]
    unused = {colour.lower() for colour in PALETTE} - {one.colour.lower() for one in shown}
    figures = sorted((folder / "figures").glob("*.svg"))
    for path in figures:
        colours = set(re.findall(r"#[0-9a-f]{6}", path.read_text(encoding="utf-8")))
        for one in shown:  # where the marks are an image, the title is in the method's ink
            assert colours & {one.colour.lower(), one.ink}, path.name
        assert not unused & colours, path.name
    page = (folder / "index.html").read_text(encoding="utf-8")
    for key in LABELS:
        assert f"background:{look[key].colour}" in page


def test_the_same_results_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """In another process, with another seed of Python's hashes."""
    script = Path(__file__).with_name("gaussian_results.py")
    environment = os.environ | {"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, env=environment, timeout=300)
    first = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    second = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_names_from_users_are_text(results: Results, tmp_path: Path) -> None:
    labels = {key: f"{EVIL} {label}" for key, label in LABELS.items()}
    evil = without_tensors(results, title=EVIL, description=EVIL, labels=labels, command=f"run {EVIL}")
    path = write_report(evil, tmp_path / "evil")
    page = _read(path)
    assert not any(tag == "script" for tag, _ in page.tags)
    assert page.text.count("<script>alert('x')</script>") > 10
    figures = {path.stem for path in (tmp_path / "evil" / "figures").iterdir()}
    assert figures == {f"{task}-{kind}" for task in ("linear", "scaled") for kind in ("skill", "coverage")}  # of rows
    markdown = (tmp_path / "evil" / "README.md").read_text(encoding="utf-8")
    prose = [line for line in markdown.splitlines() if not line.startswith("    ") and "`" not in line]
    assert not any("<script>" in line for line in prose)


def test_remarks_and_published_tables_stand_in_both_pages(results: Results, tmp_path: Path) -> None:
    published = PublishedTable(
        "linear",
        f"{EVIL} table",
        EVIL,
        EVIL,
        ("Cal.", "MAP"),
        ("calibration_error/depth", "map_error/informed"),
        ((EVIL, "exact_twin", ("1 %", "0.5")),),
    )
    tasks = (dataclasses.replace(results.tasks[0], reality=f"swing {EVIL}"), *results.tasks[1:])
    changed = without_tensors(
        results, description="As `b` does.", remarks=f"**Mind** this. {EVIL}", published=(published,), tasks=tasks
    )
    path = write_report(changed, tmp_path)
    page = _read(path)
    assert not any(tag == "script" for tag, _ in page.tags)
    assert ("strong", {}) in page.tags
    assert "Mind this." in page.text
    assert f"Its measurements come from swing {EVIL}" in page.text
    assert "as printed" in page.text
    assert "As b does." in page.text
    assert "Not run" not in page.text
    markdown = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "## Remarks\n\n**Mind** this. &lt;script&gt;" in markdown
    assert "Cal.:<br>as printed" in markdown
    assert (tmp_path / "tables" / "linear-published.csv").is_file()


def test_importing_the_package_draws_nothing() -> None:
    heavy = ("arviz", "seaborn", "matplotlib", "sbi", "pyro")
    code = f"import sys, posterior_bench.reporting; print([n for n in {heavy!r} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_an_unknown_name_is_refused() -> None:
    import posterior_bench.reporting as reporting

    with pytest.raises(AttributeError, match="nonsense"):
        reporting.nonsense  # noqa: B018
