"""What a figure is: the picture, what it shows in words, and its numbers; how all of them look, and their files."""

from __future__ import annotations

import io
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ifcar.cache.durable import write_atomic
from ifcar.pipelines.comparison.formats import csv_text
from ifcar.pipelines.pictures.fonts import fit_fonts, write_codes
from ifcar.pipelines.report.paper import column_pdf

# Okabe and Ito's colours, which people of every colour vision can tell apart.
COLOURS = {"A": "#0072b2", "B": "#d55e00"}
ON_LIGHT = "#1a1a1a"  # on shades that stay light on a dark page
GREY, INK, GAIN, LOSS = "#9a9a9a", "#222222", "#0072b2", "#d55e00"
WIDTH_INCH = 5.6  # half of the page on a desktop, all of it on a phone, where 11 points are still readable
STYLE: dict[Any, Any] = {
    "font.size": 11.0,
    "axes.titlesize": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "grid.color": "#e3e3e3",
    "legend.frameon": False,
    "legend.fontsize": 10.0,
    "lines.linewidth": 2.0,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "ifcar",
    "text.parse_math": False,
}
PNG_DPI = 160


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure with its words and numbers.

    Args:
        name: of its files.
        title: heading.
        caption: what is drawn, n, and what bars and bands are.
        alt: what it shows, for those who do not see it.
        figure: the picture.
        columns: header of its numbers.
        rows: its numbers, shares unrounded.
        wide: whether it needs its full width to be readable, scrolling on a phone.
        alone: whether it takes a whole row of the page on a desktop.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    wide: bool = False
    alone: bool = False


@contextmanager
def drawing_style() -> Iterator[None]:
    """Draw and save inside: plain text without mathematics, so that a `$` in a class name is a `$`."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # The SVG holds the text itself, and a browser has the fonts that matplotlib lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(height_inch: float) -> tuple[Figure, Axes]:
    """Return an empty figure of the common width, and its axes."""
    figure = Figure(figsize=(WIDTH_INCH, height_inch), layout="constrained")
    return figure, figure.subplots()


def short(text: str, width: int = 30, lines: int = 2) -> str:
    """Return a name that fits in a figure: in lines, its middle left out where it is too long for them.

    Characters that an SVG cannot hold are replaced.
    """
    clean = "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs", "Cn") else c for c in " ".join(text.split()))
    wrapped = textwrap.wrap(clean, width) or ["(no name)"]
    if len(wrapped) <= lines:
        return "\n".join(wrapped)
    if lines == 1:
        return textwrap.shorten(clean, width, placeholder=" …") if " " in clean else f"{clean[: width - 1]}…"
    # names of classes often differ in their last words only
    head = wrapped[: lines - 1]
    rest = clean[len(" ".join(head)) :]
    tail = textwrap.wrap(rest[::-1], width - 2)[0][::-1]
    return "\n".join([*head, f"… {tail}"])


def svg_bytes(figure: Figure) -> bytes:
    """Return the figure as SVG, the same bytes for the same figure."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def save_drawing(drawing: Drawing, folder: Path) -> tuple[list[Path], bytes, set[str]]:
    """Write NAME.svg, NAME.png, NAME.pdf and NAME.csv; the figure is as small as the PDF afterwards.

    Returns:
        Their paths, the SVG, and the characters that the PNG shows as codes, for want of a font.
    """
    undrawn = fit_fonts(drawing.figure)
    svg, png = svg_bytes(drawing.figure), io.BytesIO()
    write_codes(drawing.figure, undrawn)
    drawing.figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    contents = {
        "svg": svg,
        "png": png.getvalue(),
        "pdf": column_pdf(drawing.figure, across=drawing.alone),
        "csv": csv_text(drawing.columns, drawing.rows).encode(),
    }
    paths = [folder / f"{drawing.name}.{ending}" for ending in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomic(path, content)
    return paths, svg, undrawn
