"""Writes a cache, or goes on with it, and can kill itself at its k-th file operation; run by the crash tests.

It runs in a process of its own, a fork of the server that has read the libraries; see `fixtures.processes`.
"""

import dataclasses
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cache_cases import block_arrays, create_writer, protocols, resume_writer

FILE_OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.rmdir"}


def write(path: Path, clips: int, kill_at: int, protocol: str, told: Connection) -> None:
    """Write all blocks that are pending.

    Args:
        path: of the cache.
        clips: how many, of one view.
        kill_at: number of the file operation below the cache at which the process ends itself; 0: of none.
        protocol: name of the first protocol.
        told: gets a line before each block, and the number of file operations at the end.
    """
    operations = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal operations
        if event in FILE_OPERATIONS and str(path.name) in str(arguments[0]):
            operations += 1
            if operations == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    tables = [dataclasses.replace(protocols(clips)[0], name=protocol), protocols(clips)[1]]
    sys.addaudithook(count)
    if path.exists():
        writer = resume_writer(path, clips, protocols=tables)
    else:
        writer = create_writer(path, clips, protocols=tables)
    for block in writer.pending_blocks():
        arrays, failures = block_arrays(writer.rows_of(block))
        told.send(f"block {block}")
        writer.write_block(block, arrays, failures)
    told.send(str(operations))
