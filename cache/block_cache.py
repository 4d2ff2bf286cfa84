"""Bytes of objects that were read, on the local disk up to a bound: the least recently opened go first.

A file of the cache is as large as its object, with holes where nothing was read, and behind it one byte stands for each
piece: 1 where it is there, written after it. Several processes may use one folder: they write the same
bytes, since a file's name holds the object's ETag. What a power cut leaves shows in the rows' own checksums.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock, Semaphore

from ifcar.cache.bucket import Bucket, ObjectFacts, WholeOnlyError
from ifcar.errors import InputError

PIECE_BYTES = 1 << 18
READERS = 4  # requests at once; more only delay the pieces that are waited for
REQUEST_BYTES = 1 << 23  # pieces that lie side by side come by one request up to this size
FOLDER, BOUND = "IFCAR_BLOCKS", "IFCAR_BLOCKS_GIB"
DEFAULT_GIB = 20.0
_LOOK_EVERY = 1 << 26  # bytes read between two looks at what the folder holds


class CachedObject:
    """The bytes of one object that are here.

    Args:
        path: of the file.
        name: of the object.
        facts: its size and ETag, which every byte of it must come from.
    """

    def __init__(self, path: Path, name: str, facts: ObjectFacts) -> None:
        self.name, self.facts, self.path = name, facts, path
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        count = -(-facts.size // PIECE_BYTES)
        if os.fstat(self.descriptor).st_size != facts.size + count:
            os.ftruncate(self.descriptor, facts.size + count)
        self.present = bytearray(os.pread(self.descriptor, count, facts.size))
        self.coming: dict[int, Future[None]] = {}
        self.lock, self.whole = Lock(), Lock()

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def store(self, first: int, data: memoryview) -> None:
        """Keep pieces from number `first` on."""
        start, written = first * PIECE_BYTES, 0
        while written < len(data):
            written += os.pwrite(self.descriptor, data[written:], start + written)
        count = -(-len(data) // PIECE_BYTES)
        os.pwrite(self.descriptor, b"\1" * count, self.facts.size + first)
        self.present[first : first + count] = b"\1" * count

    def is_kept(self) -> bool:
        """Return whether the file still has its name, so that others find it too."""
        return os.fstat(self.descriptor).st_nlink > 0


class BlockCache:
    """Objects of a bucket, read in pieces or whole, and kept.

    Args:
        bucket: whose objects.
        folder: where they are kept.
        limit: bytes that may be kept.
    """

    def __init__(self, bucket: Bucket, folder: Path, limit: int) -> None:
        self._bucket, self._folder, self._limit = bucket, folder, limit
        # as many again write to disk, where writers of one file wait for each other, while the next requests go out
        self._executor = ThreadPoolExecutor(2 * READERS, thread_name_prefix="bucket")
        self._requests = Semaphore(READERS)
        self._read, self._lock = 0, Lock()

    def open(self, name: str, facts: ObjectFacts) -> CachedObject:
        """Return what is here of an object."""
        path = self._path(f"{self._bucket.where(name)}\n{facts.tag}\n{facts.size}", "pieces")
        found = CachedObject(path, name, facts)
        os.utime(path)
        return found

    def forget(self, found: CachedObject) -> None:
        """Drop what is here of an object."""
        found.path.unlink(missing_ok=True)

    def fetch(self, found: CachedObject, spans: Iterable[tuple[int, int]]) -> list[Future[None]]:
        """Ask for the pieces of an object's spans (offset, size) that are not here; return what to wait for."""
        wanted = sorted(
            {
                piece
                for offset, size in spans
                for piece in range(offset // PIECE_BYTES, -(-(offset + size) // PIECE_BYTES))
                if not found.present[piece]
            }
        )
        waits: list[Future[None]] = []
        with found.lock:
            waits += [found.coming[piece] for piece in wanted if piece in found.coming]
            new = [piece for piece in wanted if piece not in found.coming and not found.present[piece]]
            for run in _runs(new):
                future = self._executor.submit(self._get, found, run)
                found.coming |= dict.fromkeys(run, future)
                waits.append(future)
        return list(dict.fromkeys(waits))

    def whole(self, name: str, sha256: str) -> bytes:
        """Return an object with this SHA-256 whole; other bytes, as the bucket has them, where it holds no such one."""
        path = self._path(sha256, "whole")
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == sha256:
                os.utime(path)
                return data
        except FileNotFoundError:
            pass
        data = self._bucket.get(name) or b""
        if hashlib.sha256(data).hexdigest() == sha256:
            beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            beside.write_bytes(data)
            beside.replace(path)
            self._count(len(data))
        return data

    def close(self) -> None:
        """End the threads that read."""
        self._executor.shutdown(cancel_futures=True)

    def _get(self, found: CachedObject, run: range) -> None:
        try:
            start, stop = run.start * PIECE_BYTES, min(run.stop * PIECE_BYTES, found.facts.size)
            with self._requests:
                data = self._bucket.get_range(found.name, start, stop, found.facts.tag)
            found.store(run.start, data)
        except WholeOnlyError:
            with found.whole:  # one thread fetches for all that wait
                if not found.present[run.start]:
                    found.store(0, memoryview(self._bucket.get_same(found.name, found.facts.tag)))
        finally:
            with found.lock:
                for piece in run:
                    found.coming.pop(piece, None)
        self._count(stop - start)

    def _path(self, key: str, ending: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.{ending}"

    def _count(self, num_bytes: int) -> None:
        with self._lock:
            self._read += num_bytes
            if self._read < min(_LOOK_EVERY, self._limit // 8):
                return
            self._read = 0
        keep_within(self._folder, self._limit)


def keep_within(folder: Path, limit: int) -> None:
    """Remove the files that were opened longest ago until the rest takes nine tenths of an exceeded limit."""
    files = []
    for path in folder.iterdir():
        try:
            found = path.stat()
        except FileNotFoundError:
            continue  # another process was first
        if path.is_file():
            files.append((found.st_mtime_ns, found.st_blocks * 512, path))
    total = sum(size for _, size, _ in files)
    if total <= limit:
        return
    for _, size, path in sorted(files):
        path.unlink(missing_ok=True)
        total -= size
        if total <= 0.9 * limit:
            return


def block_folder() -> Path:
    """Return where objects are kept: IFCAR_BLOCKS, or ifcar's folder among those of caches."""
    own = os.environ.get(FOLDER)
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ifcar" / "blocks"


def block_limit() -> int:
    """Return how many bytes may be kept: IFCAR_BLOCKS_GIB, or 20 GiB.

    Raises:
        InputError: the variable holds no number above 0.
    """
    text = os.environ.get(BOUND) or str(DEFAULT_GIB)
    try:
        gib = float(text)
    except ValueError:
        gib = 0.0
    if not 0 < gib < float("inf"):
        raise InputError(f"{BOUND} is {text!r:.80}; expected GiB above 0, for example {DEFAULT_GIB:g}")
    return int(gib * 2**30)


def _runs(pieces: list[int]) -> list[range]:
    """Return ascending numbers as ranges of neighbours, each of one request at most."""
    found: list[range] = []
    for piece in pieces:
        if found and found[-1].stop == piece and len(found[-1]) < REQUEST_BYTES // PIECE_BYTES:
            found[-1] = range(found[-1].start, piece + 1)
        else:
            found.append(range(piece, piece + 1))
    return found
