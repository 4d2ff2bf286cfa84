"""What reaches the terminal: lines that do not drive it, and of libraries nothing but what ifcar says itself."""

from __future__ import annotations

import logging
import os
import warnings

DEBUG = "IFCAR_DEBUG"
# Read by interpreters and libraries that start later, in this process and in those that it starts.
_QUIET = {"PYTHONWARNINGS": "ignore", "TORCH_CPP_LOG_LEVEL": "ERROR", "OPENCV_LOG_LEVEL": "ERROR"}


def quiet_libraries() -> None:
    """Show warnings of ifcar on stderr, a line each, and those of no library; with IFCAR_DEBUG set all, as they come.

    To be called first in every process, before libraries are imported.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("ifcar: %(message)s"))
    if not os.environ.get(DEBUG):
        handler.addFilter(logging.Filter("ifcar"))
        warnings.showwarning = _pass_over
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def printable(text: str) -> str:
    """Return text with every character that a terminal would obey, or that has no encoding, as its escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else escaped(c) for c in text)


def escaped(character: str) -> str:
    """Return a character as its code, as Python writes it."""
    return character.encode("unicode_escape").decode()


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        return printable(super().formatMessage(record))


def _pass_over(*_: object, **__: object) -> None:
    """Take a library's warning, which tells its developer something."""
