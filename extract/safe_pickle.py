"""Reading a data set's pickle as plain data, whatever is in it.

Python's own unpickler runs code that the file names, and trusts the sizes that it states. So a process of its own
(pickle_child.py) unpickles, within bounds and with names of ours, and hands over plain values in marshal's format.
"""

from __future__ import annotations

import gc
import marshal
import mmap
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from ifcar.errors import InputError, MissingDataError

MAX_FILE_BYTES, _MAX_MEMORY_BYTES = 1 << 30, 1 << 33
_HEADER_BYTES = 17  # a letter and the mark
_LEAVES = frozenset({str, int, float, bool, complex, type(None)})
_CHILD = Path(__file__).with_name("pickle_child.py")


def load_pickle(path: Path, encoding: Literal["latin1", "utf-8"] = "latin1") -> object:
    """Return the plain data that a pickle file holds, without running anything.

    Args:
        path: file of one pickle, protocol 0 to 5, at most 1 GiB.
        encoding: of the 8-bit text that Python 2 wrote.

    Returns:
        dict, list, tuple, set, frozenset, str, bytes, int, float, complex, bool, None, numeric numpy arrays and
        scalars, at most 64 levels deep and without cycles; an OrderedDict comes as a dict, a bytearray as bytes.

    Raises:
        MissingDataError: no such file.
        InputError: it is damaged or too large, asks for anything else (the message names it), or takes memory or time
            out of proportion to its size.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; expected a pickle of plain data")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise InputError(f"{path}: {size:,} bytes; a pickle is read up to {MAX_FILE_BYTES:,}")
    memory, seconds, values = min((1 << 28) + 24 * size, _MAX_MEMORY_BYTES), 1 + (size >> 21), (1 << 20) + 16 * size
    command = [sys.executable, "-I", "-S", str(_CHILD), encoding, str(memory), str(seconds), str(values)]
    try:
        with path.open("rb") as file, _memory_file() as output:
            wait = 60 + 20 * seconds
            subprocess.run(  # noqa: S603 - a script of this package
                command, stdin=file, stdout=output, stderr=subprocess.DEVNULL, timeout=wait, check=True
            )
            with mmap.mmap(output.fileno(), 0, access=mmap.ACCESS_READ) as written:
                return _values(written)
    except subprocess.SubprocessError as error:
        raise InputError(f"{path}: takes memory or time out of proportion to its {size:,} bytes") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _memory_file() -> IO[bytes]:
    """Return an empty file, in memory where the system has such: a pipe would copy hundreds of megabytes twice."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("values"), "w+b")
    return tempfile.TemporaryFile()


def _values(output: mmap.mmap) -> object:
    """Return the values that the child wrote, with arrays. Raises ValueError with the reason of its refusal.

    Python is kept from looking for unused cycles meanwhile: there are none, and the search would take most of the time.
    """
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        with memoryview(output) as written:
            value = marshal.loads(written[_HEADER_BYTES:])  # noqa: S302 - written by a script of this package
        letter, mark = output[:1], output[1:_HEADER_BYTES]
        if letter == b"R":
            raise ValueError(value)
        return _with_arrays(value, mark) if letter == b"A" else value
    finally:
        if not gc.get_freeze_count():  # else others' frozen objects would thaw
            gc.freeze()
            gc.unfreeze()  # all that is new counts as old, and the next search passes it by
        if is_enabled:
            gc.enable()


def _with_arrays(root: Any, mark: bytes) -> Any:
    """Return a container or bytes with arrays in place of all bytes that begin with the mark.

    Lists and dicts stay the same objects, and what is shared stays shared: an array is made once.
    """
    made: dict[int, Any] = {}
    replaced: list[Any] = []  # kept, so that no other object gets the id of one

    def exchange(value: Any) -> Any:
        if id(value) in made:
            return made[id(value)]
        kind, result = type(value), value
        if kind is bytes:
            result = _array(value[len(mark) :]) if value.startswith(mark) else value
        elif kind is dict:
            if not _LEAVES.issuperset(map(type, value)):
                items = [(key if type(key) in _LEAVES else exchange(key), part) for key, part in value.items()]
                value.clear()
                value.update(items)
            for key, part in value.items():
                if type(part) not in _LEAVES:
                    value[key] = exchange(part)
        else:
            parts = [part if type(part) in _LEAVES else exchange(part) for part in value]
            if kind is list:
                value[:] = parts
            else:
                result = kind(parts)
        if result is not value:
            replaced.append(value)
        made[id(value)] = result
        return result

    return exchange(root)


def _array(content: bytes) -> object:
    if not content:
        raise ValueError("holds an array without a shape, a type and bytes")
    raw, dtype, shape, is_fortran = marshal.loads(content)  # noqa: S302 - as above
    if shape is None:
        return np.frombuffer(raw, dtype)[0]
    array = np.ndarray(shape[::-1] if is_fortran else shape, dtype, bytearray(raw))
    return array.T if is_fortran else array
