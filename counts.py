"""How many of something, in words."""

from __future__ import annotations


def count_of(count: int, one: str, several: str = "", *, of: str = "") -> str:
    """Return a count and the words that go with it: "1 clip is", "2 clips are"; "1 of 9 clips is".

    Args:
        count: how many.
        one: the words behind 1.
        several: those behind any other count; default: `one` with an s.
        of: what the count is a part of, "9 clips".
    """
    words = one if count == 1 else several or f"{one}s"
    return f"{count:,} of {of} {words}" if of else f"{count:,} {words}"
