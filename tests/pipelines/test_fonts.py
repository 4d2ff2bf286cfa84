"""Characters that matplotlib's own font lacks: drawn by another installed font, else written as codes."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from ifcar.pipelines.pictures.fonts import codes_note, fit_fonts, write_codes

RARE = "\ue123"  # for private use: no font has it but the one that is made here


def make_font(path: Path) -> Path:
    """Write a font of one character, a square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 900), (900, 900), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(RARE): "square"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "ifcar test", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900, usWeightClass=400)
    builder.setupPost()
    builder.save(path)
    return path


def drawn(text: str) -> tuple[Figure, bytes, set[str]]:
    """A figure with a text as title and as label of a tick, drawn without a warning."""
    figure = Figure(figsize=(3, 2), layout="constrained")
    axes = figure.subplots()
    axes.barh([0, 1], [1, 2])
    axes.set_yticks([0, 1], [text, "b"])
    figure.suptitle(text, parse_math=False)
    undrawn = fit_fonts(figure)
    write_codes(figure, undrawn)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(out, format="png", metadata={"Software": None})
    return figure, out.getvalue(), undrawn


def labels(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_characters_without_a_font_are_written_as_codes_and_said() -> None:
    figure, _, undrawn = drawn(f"a {RARE}\n\x07")
    assert undrawn == {RARE, "\x07"}
    assert labels(figure) == ["a \\ue123\n\\x07", "b"] and figure.get_suptitle() == "a \\ue123\n\\x07"
    assert RARE in codes_note(undrawn)


def test_an_installed_font_draws_what_the_own_one_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = drawn(RARE)[1]
    monkeypatch.setattr(fontManager, "ttflist", list(fontManager.ttflist))
    fontManager.addfont(make_font(tmp_path / "square.ttf"))
    figure, after, undrawn = drawn(RARE)
    assert undrawn == set() and labels(figure) == [RARE, "b"]
    assert after != before


def test_text_that_the_own_font_has_is_left_alone() -> None:
    figure, _, undrawn = drawn("café Ω ← $x_")
    assert undrawn == set() and labels(figure)[0] == "café Ω ← $x_"
    assert figure.axes[0].get_yticklabels()[0].get_fontfamily() == ["sans-serif"]
