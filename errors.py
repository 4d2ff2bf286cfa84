"""The errors that callers must tell apart; everything else is a built-in exception."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class IfcarError(Exception):
    """Something a user can mend: one line that says what is wrong, what was expected and what to do."""


class InputError(IfcarError, ValueError):
    """A value, file or folder given by the user is not usable."""


class UnavailableError(InputError):
    """Something published cannot be fetched from where it is published."""


class MissingDataError(IfcarError, FileNotFoundError):
    """A file or folder that the user must provide is not there."""


class LostProcessError(IfcarError):
    """A process that works for this one is gone or hangs; what was finished before is kept."""


class LockedError(IfcarError):
    """Another process writes to the cache or run folder."""


class CacheMismatchError(IfcarError):
    """A cache holds something else than what is asked for (another fingerprint, a missing array)."""


class CacheDamageError(IfcarError):
    """Bytes of a cache do not match their checksum, or a committed file is gone."""


def one_line(said: object) -> str:
    """Return an error, or a text, on one line; the name of an error's type where it says nothing."""
    line = " ".join(str(said).split())
    return line if line or isinstance(said, str) else type(said).__name__


def nearest(name: str, known: Iterable[str], end: str = "") -> str:
    """Return `", did you mean X?"` for the closest known name, or `end`, "." where another sentence follows."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {match[0]!r}?" if match else end


def nearest_of(name: str, known: Iterable[str]) -> str:
    """Return how a message about an unknown name ends: the closest known name where there is one, then all of them."""
    known = list(known)
    return f"{nearest(name, known, '.')} Known: {', '.join(known) or 'none'}"


def one_of(known: Iterable[object]) -> str:
    """Return what is expected where these values are known: "one of a, b", or the only one."""
    names = [str(name) for name in known]
    return f"{'one of ' * (len(names) > 1)}{', '.join(names)}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, here or on a device, as whichever library noticed it says so.

    On a GPU torch's allocator raises an error of its own kind; its CPU allocator, a kernel's launch, cuDNN and cuBLAS,
    which take memory for themselves, raise plain ones.
    """
    named = {kind.__name__ for kind in type(error).__mro__} & {"OutOfMemoryError", "MemoryError"}
    said = "out of memory", "can't allocate memory", "_STATUS_ALLOC_FAILED"
    return bool(named) or (isinstance(error, RuntimeError) and any(text in str(error) for text in said))
