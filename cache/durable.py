"""Files that survive a kill or a power cut: fsync, atomic replacement, checksums, leftovers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from ifcar.data_files import is_data

PARTIAL_SUFFIX = ".partial"


def fsync_path(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(root: Path) -> None:
    """Flush every file and folder below `root`, and `root` itself."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            fsync_path(Path(folder, name))
        fsync_path(Path(folder))


def write_flushed(path: Path, data: bytes | memoryview) -> None:
    """Write a new file and flush its bytes; its name is flushed with its folder. Leaves nothing when it fails."""
    _write_parts(path, (data,))


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file so that it holds either its old bytes or all of `data`, whatever happens."""
    write_atomic_parts(path, (data,))


def write_atomic_parts(path: Path, parts: Iterable[bytes]) -> None:
    """Replace a file by bytes that come in parts; see `write_atomic`."""
    temporary = path.with_name(path.name + PARTIAL_SUFFIX)
    _write_parts(temporary, parts)
    temporary.replace(path)
    fsync_path(path.parent)


def _write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    try:
        with path.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def remove_files(paths: Iterable[Path]) -> None:
    """Delete the files that are there and flush their folders."""
    folders = set()
    for path in paths:
        if path.exists():
            path.unlink()
            folders.add(path.parent)
    for folder in sorted(folders):
        fsync_path(folder)


def list_files(root: Path) -> set[str]:
    """Return the paths of all files of data below `root`, relative to it, with forward slashes."""
    found: set[str] = set()
    for folder, inner, names in os.walk(root):
        inner[:] = filter(is_data, inner)
        found.update(Path(folder, name).relative_to(root).as_posix() for name in names if is_data(name))
    return found


def remove_partials(root: Path) -> list[str]:
    """Delete the `.partial` files that a killed writer left behind.

    Args:
        root: a cache's folder.

    Returns:
        The deleted paths, relative to `root`.
    """
    partials = sorted(name for name in list_files(root) if name.endswith(PARTIAL_SUFFIX))
    remove_files(root / name for name in partials)
    return partials


def file_digest(path: Path) -> tuple[int, str]:
    """Return a file's size in bytes and the SHA-256 of its bytes.

    A CRC-32C would not do: over bytes that end in their own CRC-32C it is the same for every content, so that
    a chunk or shard with intact checksums from elsewhere would pass for the one that was committed.
    """
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), checksum
