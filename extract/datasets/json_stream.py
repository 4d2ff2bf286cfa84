"""Reading a large JSON object one entry at a time, within bounds, whatever is in the file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson
import numpy as np

from ifcar.errors import InputError, one_line
from ifcar.text_files import without_mark

MAX_DEPTH = 64
MAX_ENTRY_BYTES = 1 << 28  # one entry is in memory as a whole, at about ten times its size
_CHUNK_BYTES = 1 << 14  # small, because the parser keeps a path for every open bracket
_PEEK_BYTES = 64
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_BRACKETS_AND_QUOTES = b'[]{}"'
_OTHERS = bytes(set(range(256)) - set(_BRACKETS_AND_QUOTES))
_OPENS, _CLOSES = np.frombuffer(b"[{", np.uint8), np.frombuffer(b"]}", np.uint8)


def stream_entries(path: Path, digest: hashlib._Hash, what: str) -> Iterator[tuple[str, Any]]:
    """Yield (key, value) of a file's JSON object one entry at a time, so that memory does not grow with the file.

    Args:
        path: JSON, {key: value, …}.
        digest: takes the file's bytes; complete when the iterator has ended.
        what: the expected form, for messages.

    Raises:
        InputError: not JSON, not an object, nested too deeply, or one entry is too large.
    """
    with path.open("rb") as file:
        begin = file.read(_PEEK_BYTES)
        text = without_mark(begin, path)
        first = text.lstrip()[:1]
        if first and first != b"{":
            found = f"it begins with {first.decode(errors='replace')!r}"
            raise InputError(f"{path}: expected a JSON object {what}, but {found}")
        mark_bytes = len(begin) - len(text)
        digest.update(begin[:mark_bytes])
        file.seek(mark_bytes)
        checked = _CheckedFile(path, file, digest)
        try:
            for entry in ijson.kvitems(checked, "", use_float=True, buf_size=_CHUNK_BYTES):
                checked.entry_bytes = 0
                yield entry
        except ijson.JSONError as error:
            raise InputError(
                f"{path}: not valid JSON before byte {file.tell():,} ({one_line(error)[:200]}); download it again"
            ) from error


class _CheckedFile:
    """A binary file whose bytes enter a digest as they are read, and whose nesting and entries stay within bounds."""

    def __init__(self, path: Path, file: BinaryIO, digest: hashlib._Hash) -> None:
        self.path, self.file, self.digest = path, file, digest
        self.entry_bytes = 0
        self._depth, self._in_text, self._escape = 0, False, b""

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes. Raises InputError when the file is no JSON that is read."""
        content = self.file.read(size)
        self.digest.update(content)
        self.entry_bytes += len(content)
        if self.entry_bytes > MAX_ENTRY_BYTES:
            raise InputError(
                f"{self.path}: one entry has more than {MAX_ENTRY_BYTES:,} bytes; expected many small ones"
            )
        self._follow(content)
        return content

    def _follow(self, content: bytes) -> None:
        """Count open brackets outside of text."""
        content = self._escape + content
        self._escape = b""
        if b"\\" in content:
            if (len(content) - len(content.rstrip(b"\\"))) % 2:
                content, self._escape = content[:-1], b"\\"
            content = _ESCAPE.sub(b"", content)
        parts = content.translate(None, _OTHERS).split(b'"')
        outside = np.frombuffer(b"".join(parts[self._in_text :: 2]), np.uint8)
        self._in_text ^= len(parts) % 2 == 0
        steps = np.isin(outside, _OPENS).astype(np.int64) - np.isin(outside, _CLOSES)
        if len(steps):
            depths = self._depth + np.cumsum(steps)
            self._depth = int(depths[-1])
            if depths.max() > MAX_DEPTH:
                raise InputError(f"{self.path}: nested more than {MAX_DEPTH} levels deep; expected flat records")
