"""Commands and paths as they are pasted into a shell."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def command(*words: object) -> str:
    """Return a command in back-quotes for a message, each word quoted where a shell would read it otherwise.

    Args:
        words: the command and its arguments; a path that would pass for an option is written as `./-name`.
    """
    return f"`{' '.join(map(quoted, words))}`"


def quoted(word: object) -> str:
    """Return one word as it is pasted into a shell."""
    text = str(word)
    if isinstance(word, Path) and text.startswith("-"):
        text = f"./{text}"
    if text.isprintable():
        return shlex.quote(text)
    # $'…' of bash, zsh and others holds what a terminal would obey, or what is no text, as bytes.
    return "$'" + "".join(_escaped(character) for character in text) + "'"


def _escaped(character: str) -> str:
    if character in "'\\":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
