"""What the authors of a suite say of its outcome: a little Markdown, with no HTML, image or link let through.

Paragraphs, lists of lines that begin with ``- ``, ``**strong**``, ``*emphasis*`` and ```code```; all else is text.
"""

from __future__ import annotations

import re

from markupsafe import Markup, escape

_CODE = re.compile(r"(`[^`]+`)")
_STRONG = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*")
_EMPHASIS = re.compile(r"(?<![\w*])\*(?=[^\s*])(.+?)(?<=[^\s*])\*(?![\w*])")


def remarks_html(text: str) -> Markup:
    """The remarks as HTML.

    >>> print(remarks_html("**A** & `b<c>`"))
    <p><strong>A</strong> &amp; <code>b&lt;c&gt;</code></p>
    """
    found = []
    for block in _blocks(text):
        lines = [str(_inline_html(line)) for line in block]
        if _is_list(block):
            found.append("<ul>" + "".join(f"<li>{line[2:]}</li>" for line in lines) + "</ul>")
        else:
            found.append(f"<p>{' '.join(lines)}</p>")
    return Markup("\n".join(found))  # noqa: S704 - every line of it is escaped


def remarks_markdown(text: str) -> str:
    """The remarks as Markdown that holds nothing else.

    >>> print(remarks_markdown("**A** <b>b</b> [c](d)"))
    **A** &lt;b&gt;b&lt;/b&gt; \\[c\\](d)
    """
    found = []
    for block in _blocks(text):
        lines = [_inline_markdown(line, _is_list(block)) for line in block]
        found.append("\n".join(lines) if _is_list(block) else " ".join(lines))
    return "\n\n".join(found)


def _blocks(text: str) -> list[list[str]]:
    """Paragraphs and lists as stripped lines; a continued item of a list is one line."""
    found: list[list[str]] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines: list[str] = []
        for line in (" ".join(part.split()) for part in block.splitlines()):
            if line.startswith("- ") and lines and not _is_list(lines):
                found.append(lines)
                lines = [line]
            elif lines and not line.startswith("- "):
                lines[-1] += f" {line}"  # code and emphasis may go over the end of a line
            elif line:
                lines.append(line)
        if lines:
            found.append(lines)
    return found


def _is_list(block: list[str]) -> bool:
    return all(line.startswith("- ") for line in block)


def _inline_html(line: str) -> Markup:
    found = []
    for part in _CODE.split(line):
        if _CODE.fullmatch(part):
            found.append(f"<code>{escape(part[1:-1])}</code>")
        else:
            text = _STRONG.sub(r"<strong>\1</strong>", str(escape(part)))
            found.append(_EMPHASIS.sub(r"<em>\1</em>", text))
    return Markup("".join(found))  # noqa: S704 - what is joined is escaped, but for the tags written here


def _inline_markdown(line: str, item: bool) -> str:
    found = []
    for part in _CODE.split(line):
        if _CODE.fullmatch(part):
            found.append(part)
            continue
        text = part.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        found.append(re.sub(r"([\\`\[\]|~#_])", r"\\\1", text))
    joined = "".join(found)
    return joined if item else re.sub(r"^([-+=])", r"\\\1", joined)
