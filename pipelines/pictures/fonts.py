"""Text in pictures that matplotlib's own font cannot draw: by another installed font, else as codes."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from pathlib import Path

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, ScalarFormatter

from ifcar.terminal import escaped

_REGULAR = 400  # a font's weight


def fit_fonts(figure: Figure) -> set[str]:
    """Give the texts of a figure the installed fonts that have their characters.

    Returns:
        The characters that no installed font has; see `write_codes`.
    """
    texts = list(_texts(figure))
    missing = frozenset(c for text in texts for c in text.get_text() if c != "\n" and not _has(_own_font(), c))
    if not missing:
        return set()
    families, undrawn = _fallbacks(missing, len(fontManager.ttflist))
    for text in texts:
        if families and not missing.isdisjoint(text.get_text()):
            text.set_fontfamily([*text.get_fontfamily(), *families])
    return set(undrawn)


def write_codes(figure: Figure, undrawn: Collection[str]) -> None:
    r"""Write characters as codes, `\u65e5`, in every text of a figure."""
    if not undrawn:
        return
    codes = str.maketrans({character: escaped(character) for character in undrawn})
    for axis in _axes(figure):
        labels = axis.get_major_formatter()
        if not isinstance(labels, ScalarFormatter):  # the texts of ticks are written anew with every drawing
            axis.set_major_formatter(
                FuncFormatter(lambda value, place, labels=labels: labels(value, place).translate(codes))
            )
    for text in _texts(figure):
        text.set_text(text.get_text().translate(codes))


def codes_note(undrawn: Collection[str]) -> str:
    """Return what to say of characters that are drawn as codes."""
    shown = " ".join(sorted(undrawn)[:5]) + (" …" if len(undrawn) > 5 else "")
    return (
        f"no installed font has {shown}: pictures show their codes; with a font for them, such as Noto Sans CJK for "
        "Chinese, Japanese and Korean, they are drawn"
    )


def _axes(figure: Figure) -> Iterator[Axis]:
    for axes in figure.axes:
        yield axes.xaxis
        yield axes.yaxis


def _texts(figure: Figure) -> Iterator[Text]:
    for axis in _axes(figure):
        axis.get_ticklabels()  # writes them
    for found in figure.findobj(Text):
        assert isinstance(found, Text)
        yield found


@functools.cache
def _own_font() -> str:
    return str(findfont(FontProperties(family="DejaVu Sans")))


def _has(path: str, character: str) -> bool:
    return bool(get_font(path).get_char_index(ord(character)))


@functools.lru_cache(maxsize=64)
def _fallbacks(missing: frozenset[str], num_fonts: int) -> tuple[list[str], frozenset[str]]:
    """Return the names of fonts that together have these characters, and the characters that none has.

    Args:
        missing: the characters.
        num_fonts: that are installed, so that one added later is found.
    """
    families: list[str] = []
    left = missing
    for entry in _candidates():
        covered = frozenset(c for c in left if _has(entry.fname, c)) if left else frozenset()
        if covered:
            families.append(entry.name)
            left -= covered
    return families, left


def _candidates() -> list[FontEntry]:
    """Return the upright installed fonts, regular ones first; matplotlib's own have signs of mathematics as letters."""
    own = Path(matplotlib.get_data_path())
    entries = [e for e in fontManager.ttflist if e.style == "normal" and own not in Path(e.fname).parents]
    return sorted(entries, key=lambda entry: (abs(_weight(entry) - _REGULAR), entry.name))


def _weight(entry: FontEntry) -> int:
    return entry.weight if isinstance(entry.weight, int) else _REGULAR
