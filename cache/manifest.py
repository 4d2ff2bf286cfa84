"""A cache's identity as its root attributes hold it, and how two identities differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.schema import ROWS_PER_SHARD, Provenance, Status, fingerprint
from ifcar.cache.stored_spec import FIRST_VERSION, FORMAT_VERSION, parse_spec, spec_content
from ifcar.errors import CacheDamageError, CacheMismatchError, InputError, one_of

COMPRESSIONS = (None, "zstd")
ANEW = "write to another place (--out), or start anew (--overwrite)"
"""What to do about a cache in the way that is another one."""
MAX_CLIPS, MAX_VIEWS, MAX_ROWS_PER_SHARD = 1 << 24, 256, 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a cache is, apart from its rows.

    Args:
        spec: dimensions of the rows.
        provenance: where the numbers come from.
        fingerprint: SHA-256 over all that changes what the rows hold.
        num_clips: clips in the cache.
        num_views: V, plain views of every clip.
        num_augmented_views: A, further views of a clip, drawn at random, for training only.
        rows_per_shard: rows in a block.
        compression: None, or "zstd" for the sharded arrays of an archive.
        format_version: of the root attributes.
    """

    spec: CacheSpec
    provenance: Provenance
    fingerprint: str
    num_clips: int
    num_views: int
    num_augmented_views: int = 0
    rows_per_shard: int = ROWS_PER_SHARD
    compression: str | None = None
    format_version: int = FORMAT_VERSION

    @property
    def rows_per_clip(self) -> int:
        """V + A, rows of a clip; its plain views come first."""
        return self.num_views + self.num_augmented_views

    @property
    def num_rows(self) -> int:
        """R = clips · (V + A)."""
        return self.num_clips * self.rows_per_clip

    @property
    def num_blocks(self) -> int:
        """Blocks of `rows_per_shard` rows; the last may hold fewer."""
        return -(-self.num_rows // self.rows_per_shard)

    def rows_of(self, block: int) -> range:
        """Return the rows of a block.

        Raises:
            InputError: there is no such block.
        """
        if not 0 <= block < self.num_blocks:
            raise InputError(f"block {block} does not exist, expected 0 to {self.num_blocks - 1}")
        start = block * self.rows_per_shard
        return range(start, min(start + self.rows_per_shard, self.num_rows))

    def block_files(self, block: int) -> dict[str, str]:
        """Return the path, relative to the cache, of a block's file in each array over rows."""
        return {a.name: f"{a.name}/c.{block}" + ".0" * len(a.axes) for a in self.spec.arrays}

    def status_fault(self, row: int, status: int, *, failed: bool) -> str:
        """Return what a committed row's status is to be where it is something else; empty where it is right."""
        if failed:
            return "" if status == Status.FAILED else "2 (failed), for it has a reason"
        if row % self.rows_per_clip < self.num_views:
            return "" if status == Status.DONE else "1 (done), for it has no reason of a failure"
        if status in (Status.DONE, Status.NOT_WANTED):
            return ""
        return "1 (done) or 3 (not wanted), for it has no reason of a failure"

    def attributes(self) -> dict[str, Any]:
        """Return the root attributes, JSON values only."""
        return {
            "format_version": self.format_version,
            "spec": spec_content(self.spec, self.format_version),
            "identity": dict(self.provenance.identity),
            "environment": dict(self.provenance.environment),
            "fingerprint": self.fingerprint,
            "num_clips": self.num_clips,
            "num_views": self.num_views,
            **({} if self.format_version == FIRST_VERSION else {"num_augmented_views": self.num_augmented_views}),
            "rows_per_shard": self.rows_per_shard,
            "compression": self.compression,
        }


def new_manifest(
    spec: CacheSpec,
    provenance: Provenance,
    clip_ids: Sequence[str],
    num_views: int,
    num_augmented_views: int = 0,
    compression: str | None = None,
) -> Manifest:
    """Check what a cache shall hold and return its manifest.

    Raises:
        InputError: no clips, a doubled or unusable clip id, fewer than one plain view, an unknown compression.
    """
    if compression not in COMPRESSIONS:
        raise InputError(f"compression {compression!r} is not known, expected {one_of(COMPRESSIONS)}")
    if num_views < 1 or num_augmented_views < 0:
        raise InputError(
            f"a cache needs at least 1 view a clip and 0 augmented ones, found {num_views} and {num_augmented_views}"
        )
    _check_clip_ids(clip_ids)
    return Manifest(
        spec=spec,
        provenance=provenance,
        fingerprint=fingerprint(spec, provenance.identity, clip_ids, num_views, num_augmented_views),
        num_clips=len(clip_ids),
        num_views=num_views,
        num_augmented_views=num_augmented_views,
        compression=compression,
    )


def parse_manifest(path: Path, attributes: Mapping[str, Any]) -> Manifest:
    """Return the manifest that root attributes describe.

    Raises:
        InputError: this is no ifcar cache, or one of another format version.
        CacheDamageError: an attribute is missing or unusable.
    """
    version = attributes.get("format_version")
    if version is None:
        raise InputError(f"{path} is not an ifcar cache: its root has no attribute format_version")
    if version not in (FIRST_VERSION, FORMAT_VERSION):
        raise InputError(
            f"{path} has cache format version {version!r}, this ifcar reads versions {FIRST_VERSION} and "
            f"{FORMAT_VERSION}: use the ifcar version that wrote it, or extract anew"
        )
    try:
        manifest = Manifest(
            format_version=int(version),
            spec=parse_spec(attributes["spec"]),
            provenance=Provenance(identity=attributes["identity"], environment=attributes["environment"]),
            fingerprint=attributes["fingerprint"],
            num_clips=int(attributes["num_clips"]),
            num_views=int(attributes["num_views"]),
            num_augmented_views=int(attributes.get("num_augmented_views", 0)),
            rows_per_shard=int(attributes["rows_per_shard"]),
            compression=attributes["compression"],
        )
        _check_sizes(manifest)
        return manifest
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CacheDamageError(f"{path} has a damaged root attribute ({error!r}); run `ifcar cache verify`") from error


def _check_sizes(manifest: Manifest) -> None:
    """Refuse numbers that no cache has, before anything of their size is made."""
    for name, least, most in (
        ("num_clips", 1, MAX_CLIPS),
        ("num_views", 1, MAX_VIEWS),
        ("num_augmented_views", 0, MAX_VIEWS - manifest.num_views),
        ("rows_per_shard", 1, MAX_ROWS_PER_SHARD),
    ):
        value = getattr(manifest, name)
        if not least <= value <= most:
            raise InputError(f"{name} is {value}; expected {least} to {most:,}")


def describe_row(row: int, clip_ids: Sequence[str], rows_per_clip: int) -> str:
    """Return a row's number, clip id and view as text for messages."""
    return f"row {row} (clip {clip_ids[row // rows_per_clip]!r}, view {row % rows_per_clip})"


def check_fingerprint(path: Path, manifest: Manifest, clip_ids: Sequence[str]) -> None:
    """Compare the fingerprint with the attributes and ids that it was computed from.

    Raises:
        CacheDamageError: they do not belong together.
    """
    try:
        counts = manifest.num_views, manifest.num_augmented_views
        found = fingerprint(manifest.spec, manifest.provenance.identity, clip_ids, *counts)
    except (TypeError, ValueError) as error:
        raise CacheDamageError(f"{path} has a damaged identity ({error}); run `ifcar cache verify`") from error
    if len(clip_ids) != manifest.num_clips or manifest.fingerprint != found:
        raise CacheDamageError(
            f"{path}: the fingerprint does not match the attributes and clip ids; run `ifcar cache verify`"
        )


def check_same(path: Path, old: Manifest, old_ids: Sequence[str], new: Manifest, new_ids: Sequence[str]) -> None:
    """Refuse to go on with a cache that was made with other settings.

    Raises:
        CacheMismatchError: names each field that differs with both values.
    """
    if old.fingerprint == new.fingerprint:
        return
    raise CacheMismatchError(
        f"{path} was made with other settings: {differing(old, old_ids, new, new_ids)}. Repeat with the cache's "
        f"settings, {ANEW}"
    )


def differing(
    old: Manifest,
    old_ids: Sequence[str],
    new: Manifest,
    new_ids: Sequence[str],
    where: tuple[str, str] = ("in the cache", "now"),
) -> str:
    """Return each field in which two caches differ, with both values and where these are, on one line."""
    before, after = _fields(old), _fields(new)
    lines = [
        f"{name} is {_show(before, name)} {where[0]}, {_show(after, name)} {where[1]}"
        for name in sorted({*before, *after})
        if _show(before, name) != _show(after, name)
    ]
    if list(old_ids) != list(new_ids):
        lines.append(_clip_difference(old_ids, new_ids))
    return "; ".join(lines)


def _fields(manifest: Manifest) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(manifest, name) for name in ("num_views", "num_augmented_views")}
    content = spec_content(manifest.spec, FORMAT_VERSION)
    fields |= {f"size {letter}": size for letter, size in content["sizes"].items()}
    fields |= {f"array {array.pop('name')}": array for array in content["arrays"]}
    return fields | flat({"identity": manifest.provenance.identity})


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by their keys with dots between; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def _show(fields: Mapping[str, Any], name: str) -> str:
    return json.dumps(fields[name], ensure_ascii=False) if name in fields else "absent"


def _clip_difference(old: Sequence[str], new: Sequence[str]) -> str:
    pairs = zip(old, new, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(old), len(new)))
    here = [repr(ids[first]) if first < len(ids) else "absent" for ids in (old, new)]
    return (
        f"clips are {len(old)} in the cache, {len(new)} now, the first difference is clip {first} "
        f"({here[0]} in the cache, {here[1]} now)"
    )


def _check_clip_ids(clip_ids: Sequence[str]) -> None:
    if not clip_ids:
        raise InputError("a cache needs at least one clip, found none")
    seen: set[str] = set()
    for number, clip_id in enumerate(clip_ids):
        if not isinstance(clip_id, str) or not clip_id or not clip_id.isprintable():
            raise InputError(f"clip {number} has the id {clip_id!r}, expected printable, non-empty text")
        if clip_id in seen:
            raise InputError(f"clip id {clip_id!r} occurs twice; every clip needs its own id")
        seen.add(clip_id)
