"""The process that unpickles a file of unknown origin: pickle_child.py ENCODING BYTES SECONDS VALUES < FILE.

It bounds its memory and processor time, reads the file with Python's unpickler, for which only the names below exist,
checks what came out, and writes it in marshal's format, which holds plain values and nothing that runs. numpy, whose
own unpickling trusts its input, is not imported: an array is written as bytes that begin with a mark. It imports
nothing of this package, and starts in milliseconds.

Output: a letter, the mark, and marshalled: V, a value; A, a value with arrays; R, the reason of a refusal. Where a
bound is met, the process dies.
"""

from __future__ import annotations

import gc
import marshal
import math
import os
import pickle
import re
import resource
import sys
from collections.abc import Callable, Mapping
from typing import Any

MAX_DEPTH = 64
_MAX_AXES, _MAX_SIDE, _MAX_INT_BITS = 32, 1 << 32, 2040
_PART = 4096
_MARK = os.urandom(16)  # no file can know it
_NUMERIC = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248]|c8|c16)")
_CUT_OFF = re.compile("ran out of input|truncated|exhausted", re.IGNORECASE)
_ONLY_PLAIN = "only plain containers, numbers, text and numeric arrays are read"


class RefusedError(Exception):
    """A pickle asks for something that is not plain data; the text completes "FILE: …"."""


class Name:
    """A name that a pickle may call. It has a `__setstate__`, so that no pickle sets attributes of it."""

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call

    def __call__(self, *arguments: object) -> object:
        """Call what the name stands for."""
        return self._call(*arguments)

    def __setstate__(self, state: object) -> None:
        raise RefusedError("sets the state of a name; only plain data is read")


class NumericType:
    """A numeric type, whose byte order numpy states in a second step."""

    def __init__(self, name: object, *_: object) -> None:
        if type(name) is not str or not _NUMERIC.fullmatch(name):
            shown = name if type(name) is str else type(name).__name__
            raise RefusedError(f"holds an array of type {shown[:40]!r}; only numeric arrays are read")
        self.name, self.item_bytes = name, int(name.lstrip("<>|=")[1:])

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise RefusedError("holds a numeric type of an unknown byte order")
        self.name = state[1] + self.name.lstrip("<>|=")


class Array(bytearray):
    """An array: the mark and its marshalled content, which numpy states in a second step; written as plain bytes.

    A pickle may change it in no other way: whoever reads the output unmarshals what it holds.
    """

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, raw = state
        super().__setitem__(slice(len(_MARK), None), _described(raw, kind, shape, "F" if is_fortran else "C"))

    def _refuse(self, *_: object) -> None:
        raise RefusedError("changes the bytes of an array; only plain data is read")

    __setitem__ = __delitem__ = append = extend = _refuse


def _array(raw: object, kind: object, shape: object, order: object) -> Array:
    return Array(_MARK + _described(raw, kind, shape, order))


def _described(raw: object, kind: object, shape: object, order: object) -> bytes:
    sizes: Any = (shape,) if type(shape) is int else shape
    is_tuple = type(sizes) is tuple and len(sizes) <= _MAX_AXES
    if not is_tuple or not all(type(n) is int and 0 <= n <= _MAX_SIDE for n in sizes):
        raise RefusedError("holds an array whose shape is no tuple of sizes")
    return marshal.dumps((*_numbers(raw, kind, math.prod(sizes)), sizes, order == "F"))


def _scalar(kind: object, raw: object = b"") -> bytes:
    return _MARK + marshal.dumps((*_numbers(raw, kind, 1), None, False))


def _numbers(raw: object, kind: object, count: int) -> tuple[bytes | bytearray, str]:
    content = _encode(raw) if type(raw) is str else raw  # Python 2 wrote bytes as text
    if not isinstance(kind, NumericType) or not isinstance(content, bytes | bytearray):
        raise RefusedError("holds an array without numbers")
    if count * kind.item_bytes != len(content):
        raise RefusedError(f"holds an array of {count} numbers of type {kind.name} in {len(content)} bytes")
    return content, kind.name


def _encode(text: object, encoding: object = "latin1") -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise RefusedError("holds bytes in an unknown form")
    return text.encode("latin1")


def _bytearray(content: object = b"", encoding: object = "latin1") -> bytearray:
    return bytearray(content if isinstance(content, bytes | bytearray) else _encode(content, encoding))


_NAMES: Mapping[str, Name] = {
    "builtins.set": Name(set),
    "builtins.frozenset": Name(frozenset),
    "builtins.complex": Name(complex),
    "builtins.bytes": Name(lambda: b""),
    "builtins.bytearray": Name(_bytearray),
    "collections.OrderedDict": Name(dict),
    "_codecs.encode": Name(_encode),
    "numpy.ndarray": Name(lambda: None),  # stands among the arguments of _reconstruct
    "numpy.dtype": Name(NumericType),
    "numpy.core.multiarray._reconstruct": Name(lambda *_: Array(_MARK)),
    "numpy.core.multiarray.scalar": Name(_scalar),
    "numpy.core.numeric._frombuffer": Name(_array),
}


class _Unpickler(pickle.Unpickler):
    """Python's unpickler, for which only `_NAMES` exist."""

    def find_class(self, module: str, name: str) -> Name:
        known = f"{module.replace('numpy._core.', 'numpy.core.').replace('__builtin__', 'builtins')}.{name}"
        if known not in _NAMES:
            raise RefusedError(f"asks for {f'{module}.{name}'[:80]!r}; {_ONLY_PLAIN}")
        return _NAMES[known]

    def persistent_load(self, pid: object) -> object:
        raise RefusedError("refers to something outside the file; only plain data is read")


_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})
_PLAIN = _CONTAINERS | {str, bytes, bytearray, int, float, bool, complex, type(None), Array}


def _check_values(root: object, most: int) -> None:
    """Refuse depth, cycles, large integers, and more than `most` values; what is shared counts as often as it is met.

    Takes a part of what a container holds at a time, down to its last value before the next one, so that lists of
    values are few and short, and still in the processor's cache.
    """
    parts, met = [(0, [root])], 1
    while parts:
        depth, part = parts.pop()
        kinds = set(map(type, part))
        if not kinds <= _PLAIN:
            kind = next(iter(kinds - _PLAIN))
            raise RefusedError(f"holds a {kind.__name__}; {_ONLY_PLAIN}")
        if int in kinds and any(type(v) is int and v.bit_length() > _MAX_INT_BITS for v in part):
            raise RefusedError(f"holds an integer of more than {_MAX_INT_BITS} bits")
        if kinds.isdisjoint(_CONTAINERS):
            continue
        below = gc.get_referents(*(v for v in part if type(v) is not Array) if Array in kinds else part)
        met += len(below)
        if met > most:
            raise RefusedError(f"unfolds to more than {most:,} values")
        if below and depth == MAX_DEPTH:
            raise RefusedError(
                f"is nested more than {MAX_DEPTH} levels deep, or holds a container that contains itself"
            )
        parts += [(depth + 1, below[start : start + _PART]) for start in range(0, len(below), _PART)]


def _read(encoding: str, most: int) -> tuple[bytes, bytes]:
    """Return the output for standard input, its letter first."""
    try:
        value = _Unpickler(sys.stdin.buffer, encoding=encoding).load()
        if sys.stdin.buffer.read(1):
            raise RefusedError("holds something else than one pickle")
        _check_values(value, most)
        content = marshal.dumps(value)
        return b"A" if _MARK in content else b"V", content
    except MemoryError:
        raise
    except Exception as error:  # an unpickler may raise any
        reason = str(error)
        if isinstance(error, EOFError | pickle.UnpicklingError) and _CUT_OFF.search(reason):
            is_empty = not os.fstat(sys.stdin.fileno()).st_size
            reason = "is empty; fetch it again" if is_empty else "ends in the middle of a value; fetch it again"
        elif not isinstance(error, RefusedError):
            reason = f"is no pickle that can be read ({' '.join(reason.split())[:100]})"
        return b"R", marshal.dumps(reason)


def _bound(kind: int, amount: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))


if __name__ == "__main__":
    _bound(resource.RLIMIT_AS, int(sys.argv[2]))
    _bound(resource.RLIMIT_CPU, int(sys.argv[3]))
    _bound(resource.RLIMIT_CORE, 0)
    gc.disable()
    _letter, _content = _read(sys.argv[1], int(sys.argv[4]))
    sys.stdout.buffer.write(_letter + _MARK)
    sys.stdout.buffer.write(_content)
    sys.stdout.buffer.flush()
    os._exit(0)  # without giving back millions of objects one by one
