"""Writes a cache, or goes on with it, and can kill itself at its k-th file operation; run by the crash tests.

Usage: write_slowly.py CACHE CLIPS KILL_AT [PROTOCOL]. It writes a line before each block and the number of file
operations at the end.
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from cache_cases import block_arrays, create_writer, protocols, resume_writer

FILE_OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.rmdir"}


def main(path: Path, clips: int, kill_at: int, protocol: str) -> None:
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
        sys.stdout.write(f"block {block}\n")
        sys.stdout.flush()
        writer.write_block(block, arrays, failures)
    sys.stdout.write(f"{operations}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), (sys.argv[4:] or ["compositional"])[0])
