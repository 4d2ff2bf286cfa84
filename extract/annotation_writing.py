"""Write what was read of a large data set as one binary table, see `ifcar.extract.annotation_table`."""

from __future__ import annotations

import json
import secrets
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from ifcar.cache.durable import PARTIAL_SUFFIX, fsync_path
from ifcar.cache.protocols import ProtocolTable, protocol_arrays, protocol_attributes
from ifcar.extract.annotation_table import MAGIC, ODD, PIECE, PLAIN, TRAILER, Key, id_hash
from ifcar.extract.datasets.contract import Clip, Listing
from ifcar.extract.track_store import packed
from ifcar.extract.tracks import Tracks

MIN_CLIPS = 10_000  # fewer are read from their files in seconds


def write_table(
    path: Path,
    key: Key,
    listing: Listing,
    protocols: Sequence[ProtocolTable],
    protocol_notes: Sequence[str],
    tracks: Callable[[str], Tracks],
) -> None:
    """Write what was read of a data set, unless its clips or labels hold what no table does; it appears whole.

    Args:
        path: of the file.
        key: see `key_of`.
        listing: the clips.
        protocols: over these.
        protocol_notes: what is incomplete about them.
        tracks: of a clip.
    """
    if any(own.dtype == object for table in protocols for own in protocol_arrays(table).values()):
        return
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            columns = _Columns(file)
            if not columns.clips(listing.clips, tracks):
                return
            for table in protocols:
                for name, values in protocol_arrays(table).items():
                    columns.add(f"protocols/{table.name}/{name}", values)
            columns.end(
                {
                    "key": key,
                    "num_clips": len(listing.clips),
                    "notes": list(listing.notes),
                    "problems": list(listing.problems),
                    "digest": listing.digest,
                    "protocol_notes": list(protocol_notes),
                    "protocols": {table.name: protocol_attributes(table) for table in protocols},
                }
            )
        fsync_path(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


_NUMBERS = {"track_ends": "q", "num_frames": "i", "num_tracks": "i", "sums": "I"}  # of a clip's tracks


class _Growing:
    """Texts that are added one by one, see `_Texts`."""

    def __init__(self) -> None:
        self.data, self.ends = bytearray(), array("q")

    def add(self, text: str) -> None:
        """Add one."""
        self.data += text.encode(errors=ODD) + b"\n"
        self.ends.append(len(self.data))


class _Columns:
    """Writes a table's file from its start to its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._end, self._sum = file, file.write(MAGIC), 0
        self._columns: dict[str, tuple[str, list[int], int]] = {}
        self._start = 0

    def clips(self, clips: Sequence[Clip], tracks: Callable[[str], Tracks]) -> bool:
        """Write tracks, ids, sources and sizes of all clips; return whether a table can hold them."""
        ids, sources, numbers = _Growing(), _Growing(), {name: array(code) for name, code in _NUMBERS.items()}
        sizes, hashes = array("i"), array("Q")
        for clip in clips:
            if "\n" in clip.clip_id or any(getattr(clip, name) != value for name, value in PLAIN.items()):
                return False
            own = tracks(clip.clip_id)
            content = packed(own)
            self._end += self._file.write(content)
            about = (self._end, *own.boxes.shape[:2], google_crc32c.value(content))
            for column, value in zip(numbers.values(), about, strict=True):
                column.append(value)
            ids.add(clip.clip_id)
            sources.add("" if clip.source is None else str(clip.source))
            sizes.extend(clip.frame_size or (-1, -1))
            hashes.append(id_hash(clip.clip_id))
        self._end += self._file.write(bytes(-self._end % 8))
        self._start = self._end
        for name, column in numbers.items():
            self.add(name, np.frombuffer(column, column.typecode))
        for name, texts in (("ids", ids), ("sources", sources)):
            self.add(f"{name}.data", np.frombuffer(texts.data, np.uint8))
            self.add(f"{name}.ends", np.frombuffer(texts.ends, np.int64))
        self.add("sizes", np.frombuffer(sizes, np.int32).reshape(-1, 2))
        order = np.argsort(found := np.frombuffer(hashes, np.uint64))
        self.add("hashes", found[order])
        self.add("by_hash", order)
        return True

    def add(self, name: str, values: NDArray[Any]) -> None:
        """Write a column."""
        self._columns[name] = (values.dtype.str, list(values.shape), self._end)
        self._put(np.ascontiguousarray(values).data.cast("B") if values.size else b"")
        self._put(bytes(-self._end % 8))

    def end(self, about: Mapping[str, Any]) -> None:
        """Write the description, and where it is."""
        text = json.dumps({**about, "columns": self._columns, "columns_start": self._start}).encode()
        self._file.write(text + TRAILER.pack(self._end, len(text), google_crc32c.value(text), self._sum))

    def _put(self, data: bytes | memoryview) -> None:
        for start in range(0, len(data), PIECE):
            piece = bytes(data[start : start + PIECE])
            self._sum = google_crc32c.extend(self._sum, piece)
            self._end += self._file.write(piece)
