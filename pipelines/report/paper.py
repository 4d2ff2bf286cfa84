"""A figure as wide as a column of a paper, with text that is still readable there."""

from __future__ import annotations

import functools
import io
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
from fontTools.ttLib import TTFont
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

COLUMN_INCH, PAGE_INCH = 3.25, 6.875  # of the usual two columns, and across both
SMALLEST_POINTS = 5.0
TEXT_SHRINKS = 0.64  # from 11 points to 7, also where the picture shrinks more
_OWN_FONT, _LEAN_FONT = "DejaVu Sans", "ifcar lean"


def column_pdf(figure: Figure, *, across: bool) -> bytes:
    """Return a figure as PDF in a column's width, or across both columns; the figure is changed.

    Fonts are embedded as TrueType, which publishers ask for; of each, the glyphs that the figure shows.
    """
    width, height = figure.get_size_inches()
    scale = min(1.0, (PAGE_INCH if across else COLUMN_INCH) / width)
    _shrink(figure, scale, max(scale, TEXT_SHRINKS))
    figure.set_size_inches(width * scale, height * scale)
    out = io.BytesIO()
    _lean_fonts()
    with matplotlib.rc_context({"font.sans-serif": [_LEAN_FONT, _OWN_FONT]}):
        figure.savefig(out, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return out.getvalue()


@functools.cache
def _lean_fonts() -> tempfile.TemporaryDirectory[str]:
    """Make matplotlib's own font known under another name too, without its tables for ligatures and marks.

    To embed a font, fontTools reads these tables whole, for every figure anew, in more than half of a PDF's time.
    """
    folder = tempfile.TemporaryDirectory(prefix="ifcar-fonts-")
    for weight in ("normal", "bold"):
        path = Path(folder.name) / f"{weight}.ttf"
        with TTFont(
            findfont(FontProperties(family=_OWN_FONT, weight=weight)), lazy=True, recalcTimestamp=False
        ) as font:
            for table in {"GDEF", "GPOS", "GSUB"} & set(font.keys()):
                del font[table]
            for record in font["name"].names:
                if record.nameID in (1, 16):  # the family
                    record.string = _LEAN_FONT
            font.save(path)
        fontManager.addfont(path)
    return folder


def _shrink(figure: Figure, scale: float, of_text: float) -> None:
    ticks: set[Text] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = axis.get_ticklabels()
            ticks.update(labels)
            size = max([SMALLEST_POINTS, *(of_text * float(label.get_fontsize()) for label in labels[:1])])
            axis.set_tick_params(labelsize=size, length=3.5 * scale, width=0.8 * scale, pad=3.5 * scale)
    for artist in figure.findobj():
        if isinstance(artist, Text) and artist not in ticks:
            artist.set_fontsize(max(SMALLEST_POINTS, of_text * float(artist.get_fontsize())))
        elif isinstance(artist, Line2D):
            artist.set_linewidth(scale * artist.get_linewidth())
            artist.set_markersize(scale * artist.get_markersize())
            artist.set_markeredgewidth(scale * artist.get_markeredgewidth())
        elif isinstance(artist, Patch):
            artist.set_linewidth(scale * artist.get_linewidth())
        elif isinstance(artist, Collection):
            artist.set_linewidth((scale * np.atleast_1d(artist.get_linewidth())).tolist())
