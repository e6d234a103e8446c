from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from posterior_bench.reporting.remarks import remarks_html, remarks_markdown

EVIL = (
    "<script>x</script>",
    "![i](http://e/p.png)",
    "[t](javascript:x)",
    "a\\`<script>b`",
    "``<script>``",
    "`a``<script>b",
    "**<script>**",
    "- <script>",
)


def test_a_little_markdown_is_known() -> None:
    text = "First *line*\nand **more** of `a_b`.\n\nA list:\n- one\n  continued\n- two & three\n"
    html = str(remarks_html(text))
    assert "<p>First <em>line</em> and <strong>more</strong> of <code>a_b</code>.</p>" in html
    assert "<p>A list:</p>\n<ul><li>one continued</li><li>two &amp; three</li></ul>" in html
    assert remarks_markdown(text).endswith("A list:\n\n- one continued\n- two &amp; three")


def test_names_and_products_are_no_emphasis() -> None:
    assert remarks_html("inn_ly_lz, 2 * 3 * 4") == "<p>inn_ly_lz, 2 * 3 * 4</p>"
    assert remarks_markdown("# inn_ly") == r"\# inn\_ly"


@pytest.mark.parametrize("text", EVIL)
def test_nothing_else_gets_through(text: str) -> None:
    html = str(remarks_html(text))
    assert "<script" not in html
    assert "<img" not in html
    assert "<a" not in html
    shown = MarkdownIt("commonmark", {"html": True}).render(remarks_markdown(text))  # lets HTML through, if it is there
    assert not any(tag in shown for tag in ("<script", "<img", "<a "))


def test_no_remarks_are_nothing() -> None:
    assert remarks_html(" \n") == remarks_markdown("") == ""
