"""How many of something, in words."""

from __future__ import annotations

_OF_SEVERAL = {"is": "are", "has": "have", "counts": "count"}


def count_of(count: int, one: str, several: str = "", *, of: str = "") -> str:
    """Return a count and the words that go with it: "1 clip is", "2 clips are"; "1 of 9 clips is", "2 of 9 clips are".

    Args:
        count: how many.
        one: the words behind 1.
        several: those behind any other count; default: those of `one`, the first with an s, or verbs as they are then.
        of: what the count is a part of, "9 clips".
    """
    if count != 1:
        first, *others = one.split(" ")
        one = several or " ".join([_OF_SEVERAL.get(first, f"{first}s"), *(_OF_SEVERAL.get(w, w) for w in others)])
    return f"{count:,} of {of} {one}" if of else f"{count:,} {one}"
