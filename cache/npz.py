"""Reading NPZ and NPY files, as numpy writes them: nothing compressed, nothing larger than the file."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ifcar.errors import one_line

_ERRORS = (OSError, ValueError, EOFError, SyntaxError, zipfile.BadZipFile, zlib.error, NotImplementedError, MemoryError)
_KINDS = "biufU"


class NpzError(Exception):
    """An NPZ or NPY file is damaged or no such file; the text says why."""


def read_arrays(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> list[NDArray[Any]]:
    """Return arrays of numbers or text by name, then those of the optional names that the file holds.

    Raises:
        KeyError: the file holds no array of a name.
        NpzError: the file cannot be read, is compressed, or an array claims more than the file holds.
    """
    try:
        with zipfile.ZipFile(path) as file:
            held = set(file.namelist())
            more = [name for name in optional if f"{name}.npy" in held]
            return [_read(file, file.getinfo(f"{name}.npy")) for name in (*names, *more)]
    except _ERRORS as error:
        raise NpzError(one_line(error)) from error


def read_array(path: Path) -> NDArray[Any]:
    """Return the array of numbers or text that an NPY file holds.

    Raises:
        NpzError: the file cannot be read, or the array claims more than it holds.
    """
    try:
        with path.open("rb") as file:
            return _array(file, path.name, path.stat().st_size)
    except _ERRORS as error:
        raise NpzError(one_line(error)) from error


def _read(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"{info.filename} is compressed; expected arrays as np.savez writes them")
    with file.open(info) as member:
        return _array(member, info.filename, info.file_size)


def _array(file: IO[bytes], name: str, size_bytes: int) -> NDArray[Any]:
    """Return the array of a file of this size, from its beginning."""
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read_header(file)
    num_bytes = math.prod(shape) * dtype.itemsize
    if dtype.kind not in _KINDS or num_bytes > size_bytes:
        raise ValueError(f"{name} claims {num_bytes:,} bytes of {dtype} in {size_bytes:,} bytes")
    content = file.read(num_bytes)
    if len(content) < num_bytes:
        raise ValueError(f"{name} is cut off")
    return np.ndarray(shape, dtype, content, order="F" if is_fortran else "C").copy()
