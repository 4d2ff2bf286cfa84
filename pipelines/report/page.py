"""The page: sections of figures, tables and clips, rendered to one HTML file that asks nothing of the network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ifcar import __version__
from ifcar.errors import InputError
from ifcar.pipelines.comparison.formats import csv_text
from ifcar.pipelines.report.answer import Answer
from ifcar.pipelines.report.drawing import Drawing
from ifcar.pipelines.report.gallery import Gallery
from ifcar.pipelines.report.tables import Table

PAPER = "#1d2125"  # the page's sheet in the dark, see style.css
LIGHT_INK = "#e9ecef"
INVERTED = {
    "#000000": LIGHT_INK,
    "#222222": LIGHT_INK,
    "#555555": "#a7b0ba",
    "#bbbbbb": "#5a626b",
    "#e3e3e3": "#373d44",
    "#e8e8e8": "#373d44",
    "#0072b2": "#4aa3dc",
    "#d55e00": "#e8853f",
}

HERE = Path(__file__).parent
SCRIPTS = ("page.js", "clips.js")
SIGN_WITHIN = 1 << 16  # bytes of a page, after which no title ends
MOST_NUMBERS = 60  # rows of a figure's numbers that the page shows as a table; more are a download only


@dataclass(frozen=True, kw_only=True)
class ShownFigure:
    """A figure on the page, with its SVG's bytes."""

    drawing: Drawing
    svg: bytes

    def svg_uri(self) -> str:
        """Return the picture as a data URI; inside an image no script of an SVG runs."""
        return _data_uri("image/svg+xml", with_dark_mode(self.svg))

    def csv_uri(self) -> str:
        """Return the numbers as a data URI."""
        return _data_uri("text/csv;charset=utf-8", csv_text(self.drawing.columns, self.drawing.rows).encode())

    def shows_numbers(self) -> bool:
        """Return whether the numbers are few enough to stand on the page."""
        return len(self.drawing.rows) <= MOST_NUMBERS


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of a chapter.

    Args:
        name: for its anchor.
        title: heading.
        text: one paragraph, or empty.
        notes: what else belongs to it, each by itself.
        figures: side by side where there is room.
        tables: below them.
        folded: whether the tables open on request only.
        gallery: clips, or None.
    """

    name: str
    title: str
    text: str = ""
    notes: Sequence[str] = ()
    figures: Sequence[ShownFigure] = field(default_factory=tuple)
    tables: Sequence[Table] = field(default_factory=tuple)
    folded: bool = False
    gallery: Gallery | None = None

    def is_empty(self) -> bool:
        """Return whether it shows nothing and only says why."""
        return not (self.figures or self.tables or self.gallery)


@dataclass(frozen=True, kw_only=True)
class ChapterPage:
    """One comparison on the page.

    Args:
        ident: unique on the page, for anchors.
        title: heading.
        facts: (what, value) about the data.
        answers: one for each protocol of the table.
        pair: ("A" or "B", system).
        notes: what is missing and why.
        sections: in order; those that show nothing stand together at the end.
    """

    ident: str
    title: str
    facts: Sequence[tuple[str, str]]
    answers: Sequence[Answer]
    pair: Sequence[tuple[str, str]]
    notes: Sequence[str]
    sections: Sequence[Section]

    def shown(self) -> list[Section]:
        """Return the sections that show something."""
        return [section for section in self.sections if not section.is_empty()]

    def left_out(self) -> list[Section]:
        """Return the sections that only say why they show nothing."""
        return [section for section in self.sections if section.is_empty()]


def render(chapters: Sequence[ChapterPage]) -> str:
    """Return the page. Everything but its own style and script is escaped."""
    return render_page(HERE, {"chapters": chapters})


def render_page(folder: Path, content: Mapping[str, object]) -> str:
    """Return a page with this room's looks, parts and script. Everything else is escaped.

    Args:
        folder: holds the page's template.html.
        content: what the template names.
    """
    environment = Environment(
        loader=FileSystemLoader([folder, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["records"] = _records
    script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("template.html").render(
        **content,
        version=__version__,
        # our own files, not data
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_digest=digest,
    )


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _records(value: object) -> Markup:
    """Return JSON for a script element that is data: nothing in it ends the element, and no script of a name runs."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704


def _number(value: object) -> str:
    """Return a number of a figure's table: shares and losses to four digits."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def with_dark_mode(svg: bytes) -> bytes:
    """Return an SVG of matplotlib's with a style for dark pages; pictures, and what is written on them, stay.

    The files of a figure are without it: programs that read an SVG for print do not know what a reader prefers.
    """
    rules = [f"path[style*='fill: #ffffff'],use[style*='fill: #ffffff']{{fill:{PAPER} !important}}"]
    rules.append(f"text:not([style*='fill: ']){{fill:{LIGHT_INK}}}")
    for light, dark in INVERTED.items():
        rules.append(f"[style*='fill: {light}']{{fill:{dark} !important}}")
        rules.append(f"[style*='stroke: {light}']{{stroke:{dark} !important}}")
    style = f"<style>@media (prefers-color-scheme: dark){{{''.join(rules)}}}</style></svg>"
    head, _, tail = svg.rpartition(b"</svg>")
    return head + style.encode() + tail


def check_replaceable(page: Path, command: str) -> None:
    """Raise InputError where a page cannot be written without losing what is there.

    Args:
        page: the file.
        command: whose pages give way to newer ones, as "ifcar report"; their titles end with it.
    """
    if page.is_dir():
        raise InputError(f"{page}: is a folder; name a file with --out")
    if not page.exists():
        return
    with page.open("rb") as file:
        if f"{command}</title>".encode() not in file.read(SIGN_WITHIN):
            raise InputError(f"{page}: is there, and `{command}` did not write it; name another --out")
