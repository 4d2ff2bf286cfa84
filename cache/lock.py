"""One writer at a time: a lock beside a cache or run folder, which names its holder and ends with it.

The lock is the operating system's (POSIX record lock), so that a killed process, also one killed by SIGKILL, holds
nothing, and processes that it started hold nothing either. The text in the file only tells who holds it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ifcar.errors import LockedError

logger = logging.getLogger(__name__)
_HELD = (errno.EACCES, errno.EAGAIN)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


def lock_path(path: Path) -> Path:
    """Return the lock file of a folder: hidden beside it, so that the folder holds nothing but its own."""
    return path.parent / f".{path.name}.lock"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a folder; a process holds it once.

    Args:
        path: the cache or run folder, which need not be there yet; its parent is made.

    Raises:
        LockedError: another process holds it; names host, process, command and since when.
    """
    file = lock_path(path.absolute())
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # before the lock ends, so that nobody else's file is removed
        os.close(descriptor)


def _acquire(path: Path, file: Path) -> int:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            if error.errno in _HELD:
                raise LockedError(_refusal(path, holder)) from error
            if error.errno not in _UNSUPPORTED:
                raise
            logger.warning("%s: this file system has no locks; see to it that one process writes at a time", path)
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if _is_at(descriptor, file):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _describe_self(), 0)
            return descriptor
        os.close(descriptor)  # its holder removed it between our opening and our locking


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _describe_self() -> bytes:
    record = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join(Path(part).name if n == 0 else part for n, part in enumerate(sys.argv)),
    }
    return json.dumps(record).encode() + b"\n"


def _refusal(path: Path, holder: bytes) -> str:
    try:
        record = json.loads(holder)
        who = "process {process} on {host} since {since} ({command})".format(**record)
    except (ValueError, KeyError, TypeError):
        who = "another process"  # it has the lock and has not written its name yet
    return f"{path}: {who} writes there; wait for it, stop it, or work in another place"
