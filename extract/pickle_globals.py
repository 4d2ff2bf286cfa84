"""The few names that a data set's pickle may call, each answered by a function of ours: nothing is ever imported.

Arrays and scalars of numpy are rebuilt from their raw bytes here, so that numpy's own unpickling, which trusts its
input, never sees the file. Other pickled names, and object arrays, are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.extract.plain_values import RefusedError, make_dict, make_set

_NUMERIC = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248]|c8|c16)")
_MAX_AXES = 32
_ARRAY_STATE_LENGTH = 5


@dataclass(slots=True)
class PendingArray:
    """An array that the pickle has announced and not yet filled; `places` are its numbers in the memo."""

    places: list[int]


@dataclass(slots=True)
class PendingType:
    """A numeric type, whose byte order the pickle states in a second step."""

    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Name:
    """A pickled global: what it is called and what it does with its arguments."""

    text: str
    call: Callable[..., object] | None


def find_global(module: str, name: str) -> Name:
    """Return what a pickle may call under this name. Raises RefusedError for all but the listed few."""
    where = re.sub(r"^numpy\._?core\.", "numpy:core.", module)
    text = f"{module}.{name}"
    known = f"{where}.{name}"
    if known not in _CALLS:
        raise RefusedError(f"asks for {text[:80]!r}; only plain containers, numbers, text and numeric arrays are read")
    return Name(text, _CALLS[known])


def fill_array(state: object) -> NDArray[Any]:
    """Return the array that numpy's state (version, shape, type, Fortran order, bytes) describes."""
    if not isinstance(state, tuple) or len(state) != _ARRAY_STATE_LENGTH:
        raise RefusedError("holds an array without a shape, a type and bytes")
    _, shape, kind, is_fortran, raw = state
    if isinstance(raw, str):
        raw = _as_bytes(raw)  # Python 2 wrote bytes as text
    return _array(raw, kind, shape, "F" if is_fortran else "C")


def set_byte_order(pending: PendingType, state: object) -> None:
    """Apply the state of a numeric type, of which only the byte order may say something."""
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
    if order not in ("<", ">", "|", "="):
        raise RefusedError("holds a numeric type of an unknown byte order")
    pending.dtype = pending.dtype.newbyteorder(order)


def _dtype(name: object, *_: object) -> PendingType:
    if not isinstance(name, str) or not _NUMERIC.fullmatch(name):
        raise RefusedError(f"holds an array of type {str(name)[:40]!r}; only numeric arrays are read")
    return PendingType(np.dtype(name))


def _array(raw: object, kind: object, shape: object, order: object) -> NDArray[Any]:
    sizes = (shape,) if isinstance(shape, int) else shape
    if not isinstance(sizes, tuple) or len(sizes) > _MAX_AXES or not all(type(n) is int and n >= 0 for n in sizes):
        raise RefusedError("holds an array whose shape is no tuple of sizes")
    if not isinstance(kind, PendingType) or not isinstance(raw, bytes | bytearray):
        raise RefusedError("holds an array without numbers")
    if math.prod(sizes) * kind.dtype.itemsize != len(raw):
        raise RefusedError(f"holds an array of shape {sizes} and type {kind.dtype} in {len(raw)} bytes")
    return np.ndarray(sizes, kind.dtype, raw, order="F" if order == "F" else "C").copy("K")


def _scalar(kind: object, raw: object = b"") -> object:
    content = _as_bytes(raw) if isinstance(raw, str) else raw
    return _array(content, kind, (), "C")[()]


def _as_bytes(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError("holds bytes in an unknown form")
    try:
        return text.encode("latin1")
    except UnicodeEncodeError as error:
        raise RefusedError("holds bytes in an unknown form") from error


def _complex(real: object = 0.0, imaginary: object = 0.0) -> complex:
    if not isinstance(real, int | float) or not isinstance(imaginary, int | float):
        raise RefusedError("holds a complex number without its two parts")
    return complex(real, imaginary)


def _items(items: object = ()) -> list[object]:
    if not isinstance(items, list | tuple):
        raise RefusedError("builds a container from something else than a list")
    return list(items)


def _nothing(*arguments: object) -> bytes:
    if arguments:
        raise RefusedError("holds bytes in an unknown form")
    return b""


def _bytearray(content: object = b"", encoding: object = "latin1") -> bytearray:
    return bytearray(content if isinstance(content, bytes) else _as_bytes(content, encoding))


_BUILTINS: Mapping[str, Callable[..., object]] = {
    "set": lambda items=(): make_set(_items(items)),
    "frozenset": lambda items=(): frozenset(make_set(_items(items))),
    "bytes": _nothing,
    "bytearray": _bytearray,
    "complex": _complex,
}
_CALLS: Mapping[str, Callable[..., object] | None] = {
    **{f"{module}.{name}": call for module in ("builtins", "__builtin__") for name, call in _BUILTINS.items()},
    "collections.OrderedDict": lambda items=(): make_dict(_pairs(items)),
    "_codecs.encode": _as_bytes,
    "numpy.ndarray": None,
    "numpy.dtype": _dtype,
    "numpy:core.multiarray._reconstruct": lambda *_: PendingArray([]),
    "numpy:core.multiarray.scalar": _scalar,
    "numpy:core.numeric._frombuffer": _array,
}


def _pairs(items: object) -> list[object]:
    flat: list[object] = []
    for pair in _items(items):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RefusedError("builds a container from something else than a list")
        flat += pair
    return flat
