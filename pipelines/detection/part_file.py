"""The file that grows while clips are looked at: a flushed line a clip, so that a kill costs the clip in work alone.

boxes.jsonl.part    {"options": SHA-256}, then {"clip": id, …}, a line each
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ifcar.cache.durable import fsync_path, write_atomic_parts
from ifcar.errors import InputError

_OPTIONS, _CLIP = "options", "clip"


def part_path(boxes: Path) -> Path:
    """Return where a file of boxes grows."""
    return boxes.with_suffix(".jsonl.part")


def write_part(path: Path, options: str, found: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Write a part of clips that were looked at before; see `PartFile`."""
    lines = (_line({_CLIP: clip_id, **content}) for clip_id, content in found)
    write_atomic_parts(path, itertools.chain([_line({_OPTIONS: options})], lines))


def _line(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, separators=(",", ":")) + "\n").encode()


class PartFile:
    """A part, open to go on.

    Args:
        path: of the part; it need not be there.
        options: SHA-256 of what decides which boxes are found.

    Raises:
        InputError: the part was begun with other options, or is none.
    """

    def __init__(self, path: Path, options: str) -> None:
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("a+b")
        try:
            self._read(options)
        except BaseException:
            self._file.close()
            raise

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._places

    def clip_ids(self) -> list[str]:
        """Return the clips, in the order in which they were added."""
        return list(self._places)

    def add(self, clip_id: str, content: Mapping[str, Any]) -> None:
        """Append what was found in a clip, and flush it."""
        self._append({_CLIP: clip_id, **content})

    def read(self, clip_id: str) -> dict[str, Any]:
        """Return what was found in a clip. Raises KeyError where none was added."""
        start, size = self._places[clip_id]
        content: dict[str, Any] = json.loads(os.pread(self._file.fileno(), size, start))
        return content

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()

    def remove(self) -> None:
        """Close and delete the file."""
        self.close()
        self.path.unlink()
        fsync_path(self.path.parent)

    def _append(self, content: Mapping[str, Any]) -> None:
        line = _line(content)
        start = self._file.seek(0, os.SEEK_END)
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        if _CLIP in content:
            self._places[content[_CLIP]] = start, len(line)

    def _read(self, options: str) -> None:
        """Learn what the file holds, and cut off what a kill left of a line."""
        end = 0
        for number, (start, line) in enumerate(self._lines()):
            try:
                content = json.loads(line)
                stated = content[_OPTIONS] if number == 0 else content[_CLIP]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{self.path}: line {number + 1} is none of `ifcar detect`; remove the file, or name another --out"
                ) from error
            if number == 0 and stated != options:
                raise InputError(
                    f"{self.path}: was begun with other options, so that it cannot go on; give those, name another "
                    "--out, or begin anew with --overwrite"
                )
            if number:
                self._places[stated] = start, len(line)
            end = start + len(line)
        self._file.truncate(end)
        if not end:
            self._append({_OPTIONS: options})

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        start = 0
        self._file.seek(0)
        for line in self._file:
            if line.endswith(b"\n"):
                yield start, line
            start += len(line)
