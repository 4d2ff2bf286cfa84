"""Commit records: the small sealed JSON files that alone say that a block, or the tables, are done.

A sealed file holds its own CRC-32C and is compared byte for byte with the one text its content can have,
so that no changed byte goes unseen, not even in white space.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c

from ifcar.cache.durable import file_digest
from ifcar.cache.manifest import Manifest
from ifcar.errors import CacheDamageError

COMMITS = "commits"
TABLES_RECORD = f"{COMMITS}/tables.json"


@dataclass(frozen=True, slots=True)
class FileDigest:
    """Size and SHA-256 that a file must have."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A row that could not be computed.

    Args:
        row: row number in the cache.
        clip_id: the clip's id.
        view: view number of the clip.
        reason: why, in one line.
    """

    row: int
    clip_id: str
    view: int
    reason: str


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """What a finished block holds.

    Args:
        block: block number.
        start: first row.
        stop: row after the last.
        fingerprint: fingerprint of the cache that the block belongs to.
        files: the block's files, by path relative to the cache.
        failures: the rows that could not be computed.
        notes: row number in the cache → what is to be said of a row that was computed, in one line.
    """

    block: int
    start: int
    stop: int
    fingerprint: str
    files: Mapping[str, FileDigest]
    failures: tuple[FailedRow, ...]
    notes: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TablesRecord:
    """The files outside blocks.

    Args:
        fingerprint: fingerprint of the cache.
        files: metadata, clip ids and protocols, by path relative to the cache.
        protocols_complete: False while protocols are being replaced; the next `extract` then writes them anew.
    """

    fingerprint: str
    files: Mapping[str, FileDigest]
    protocols_complete: bool


def commit_name(block: int) -> str:
    """Return the path of a block's commit record, relative to the cache."""
    return f"{COMMITS}/{block:06d}.json"


def digest_files(root: Path, names: Iterable[str]) -> dict[str, FileDigest]:
    """Return size and checksum of files below `root`, by relative path."""
    return {name: FileDigest(*file_digest(root / name)) for name in sorted(names)}


def digest_problem(root: Path, name: str, expected: FileDigest) -> str | None:
    """Return what is wrong with a file, or None when its bytes are those that were committed."""
    try:
        size, checksum = file_digest(root / name)
    except FileNotFoundError:
        return "is missing"
    if size != expected.size:
        return f"has {size} bytes, expected {expected.size}"
    if checksum != expected.sha256:
        return f"has SHA-256 {checksum[:12]}…, expected {expected.sha256[:12]}…"
    return None


def encode_commit(record: CommitRecord) -> bytes:
    """Return the bytes of a block's commit record."""
    body: dict[str, Any] = {
        "block": record.block,
        "rows": [record.start, record.stop],
        "fingerprint": record.fingerprint,
        "files": _files_json(record.files),
        "failed": [{"row": f.row, "clip": f.clip_id, "view": f.view, "reason": f.reason} for f in record.failures],
    }
    if record.notes:
        body["notes"] = [{"row": row, "text": text} for row, text in sorted(record.notes.items())]
    return _seal(body)


def read_commit(path: Path) -> CommitRecord:
    """Read a block's commit record, see `parse_commit`."""
    return parse_commit(_read(path), path)


def parse_commit(data: bytes, path: Path) -> CommitRecord:
    """Return the commit record of these bytes, read at `path`.

    Raises:
        CacheDamageError: the bytes are not those that were written.
    """
    body = _open_seal(data, path)
    try:
        start, stop = body["rows"]
        failures = (FailedRow(f["row"], f["clip"], f["view"], f["reason"]) for f in body["failed"])
        return CommitRecord(
            block=body["block"],
            start=start,
            stop=stop,
            fingerprint=body["fingerprint"],
            files=_parse_files(body["files"]),
            failures=tuple(failures),
            notes={int(note["row"]): str(note["text"]) for note in body.get("notes", ())},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CacheDamageError(f"{path} is not a commit record ({error!r}); run `ifcar cache repair`") from error


def read_commits(path: Path, manifest: Manifest, blocks: Iterable[int] | None = None) -> dict[int, CommitRecord]:
    """Read the commit record of every committed block, or of those among `blocks`.

    Raises:
        CacheDamageError: a record is damaged or belongs to another cache or block.
    """
    commits = {}
    for block in range(manifest.num_blocks) if blocks is None else blocks:
        file = path / commit_name(block)
        if file.exists():
            commits[block] = check_commit(file, read_commit(file), manifest, block)
    return commits


def check_commit(file: Path, record: CommitRecord, manifest: Manifest, block: int) -> CommitRecord:
    """Return a commit record that belongs to this cache and block.

    Raises:
        CacheDamageError: it does not.
    """
    rows = manifest.rows_of(block)
    if (
        record.fingerprint != manifest.fingerprint
        or (record.block, record.start, record.stop) != (block, rows.start, rows.stop)
        or set(record.files) != set(manifest.block_files(block).values())
    ):
        raise CacheDamageError(
            f"{file} belongs to another cache or block (fingerprint {record.fingerprint[:12]}, block "
            f"{record.block}), expected {manifest.fingerprint[:12]}, block {block}; run `ifcar cache repair`"
        )
    return record


def encode_tables(record: TablesRecord) -> bytes:
    """Return the bytes of the record of the files outside blocks."""
    return _seal(
        {
            "fingerprint": record.fingerprint,
            "files": _files_json(record.files),
            "protocols_complete": record.protocols_complete,
        }
    )


def read_tables(path: Path) -> TablesRecord:
    """Read the record of the files outside blocks, see `parse_tables`."""
    return parse_tables(_read(path), path)


def parse_tables(data: bytes, path: Path) -> TablesRecord:
    """Return the record of the files outside blocks of these bytes, read at `path`.

    Raises:
        CacheDamageError: the bytes are not those that were written.
    """
    body = _open_seal(data, path)
    try:
        return TablesRecord(body["fingerprint"], _parse_files(body["files"]), body["protocols_complete"])
    except (KeyError, TypeError) as error:
        raise CacheDamageError(f"{path} is not a tables record ({error!r}); run `ifcar cache repair`") from error


def _files_json(files: Mapping[str, FileDigest]) -> dict[str, dict[str, Any]]:
    return {name: {"size": digest.size, "sha256": digest.sha256} for name, digest in files.items()}


def _parse_files(files: Mapping[str, Mapping[str, Any]]) -> dict[str, FileDigest]:
    return {name: FileDigest(int(entry["size"]), str(entry["sha256"])) for name, entry in files.items()}


def _text(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False).encode() + b"\n"


def _seal(body: Mapping[str, Any]) -> bytes:
    return _text({**body, "crc32c": google_crc32c.value(_text(body))})


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CacheDamageError(f"{path} is missing; run `ifcar cache repair`") from error


def _open_seal(data: bytes, path: Path) -> dict[str, Any]:
    try:
        body = json.loads(data)
        del body["crc32c"]
        intact = _seal(body) == data
    except (ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise CacheDamageError(f"{path} does not match its own checksum; run `ifcar cache repair`")
    assert isinstance(body, dict)
    return body
