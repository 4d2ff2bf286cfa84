"""The parts of a cache, which hold its clips one after the other, read as that cache.

Parts agree in everything that changes a feature's value, in views, protocols and classes, and no clip is in two of
them. What is read has the fingerprint of one cache of all their clips in this order: where parts were extracted with
`--part K/N`, that of the cache extracted whole, whose rows have the same numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.addresses import Address, place_of
from ifcar.cache.clips import CAMERAS, IDS, SEGMENTS, ClipTable
from ifcar.cache.commits import FailedRow
from ifcar.cache.durable import write_atomic
from ifcar.cache.manifest import differing, new_manifest
from ifcar.cache.merging import merged_protocol
from ifcar.cache.protocols import ProtocolTable, check_protocols
from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Provenance
from ifcar.cache.single import PARTS_SUFFIX, check_listing_gives_way, listed, open_listed, open_single, place_listed
from ifcar.errors import CacheMismatchError, InputError, MissingDataError
from ifcar.text_files import read_text

PARTS_VERSION = 1
PART, WHOLE = "part", "part of"  # in a part's record: its number as K/N, and the fingerprint of the whole cache
_ENTRY = "cache", "fingerprint"
_REMEDY = "list its parts anew with `ifcar cache parts`"


class PartsReader(CacheReader):
    """Finished parts, read as one cache.

    Args:
        path: of the file that lists them; None where none does.
        parts: those that say their number are put in its order, others stay in theirs.

    Raises:
        InputError: there are none, one is not finished or has a clip of another, or not all of a whole are there.
        CacheMismatchError: they differ in what changes a feature's value, in views, protocols or classes.
    """

    def __init__(self, path: Path | None, parts: Sequence[CacheReader]) -> None:
        if not parts:
            raise InputError("a cache needs parts, found none")
        for number, part in enumerate(parts):
            if any(part.path == other.path for other in parts[:number]):
                raise InputError(f"{part.path} is named twice; expected every part once")
        self._parts = parts = _in_order(parts)
        path = path or Path(" + ".join(str(part.path) for part in parts))
        for part in parts:
            part.check_complete()
        clips = _clips(parts)
        first = parts[0].manifest
        for part in parts[1:]:
            if said := differing(first, (), part.manifest, (), (f"in {parts[0].path}", f"in {part.path}")):
                raise CacheMismatchError(f"{part.path} is no part of the same cache: {said}")
        provenance = Provenance(identity=first.provenance.identity, environment=_environment(parts))
        counts = first.num_views, first.num_augmented_views
        super().__init__(path, new_manifest(first.spec, provenance, clips.ids, *counts), clips)
        _check_protocol_names(parts)
        whole = parts[0].environment.get(WHOLE)
        if whole is not None and whole != self.fingerprint:
            raise CacheMismatchError(f"{path}: the parts are not those of one cache; extract them from the same files")
        self._starts = np.cumsum([0, *(part.num_rows for part in parts)])
        self._committed = np.ones(self.num_rows, np.bool_)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.path, self._parts))

    def protocol_names(self) -> list[str]:
        """Return the names of the protocols, which all parts have."""
        return self._parts[0].protocol_names()

    def failures(self) -> list[FailedRow]:
        """Return every failed row, in row order."""
        pairs = zip(self._starts.tolist(), self._parts, strict=False)
        return [replace(own, row=own.row + start) for start, part in pairs for own in part.failures()]

    def committed_rows(self) -> NDArray[np.bool_]:
        """Return (R,) True: parts are finished."""
        return self._committed

    def close(self) -> None:
        """Close the parts."""
        for part in self._parts:
            part.close()

    def advise(self, name: str, rows: NDArray[np.int64]) -> None:
        """Tell each part of its rows."""
        for part, chosen, own in self._divided(rows):
            part.advise(name, own[chosen])

    def _fill(self, name: str, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        for part, chosen, own in self._divided(rows):
            if chosen.all():
                part.read_rows(name, own, out)
            else:
                out[chosen] = part.read_rows(name, own[chosen])

    def _divided(self, rows: NDArray[np.int64]) -> list[tuple[CacheReader, NDArray[np.bool_], NDArray[np.int64]]]:
        """Return each part that has some of these rows, which they are, and what it calls them."""
        place = np.searchsorted(self._starts, rows, side="right") - 1
        return [(self._parts[k], place == k, rows - self._starts[k]) for k in np.unique(place).tolist()]

    def _load_table(self, name: str) -> NDArray[Any]:
        return np.concatenate([part.table(name) for part in self._parts])

    def _load_protocol(self, name: str) -> ProtocolTable:
        merged = merged_protocol({str(part.path): part.protocol(name) for part in self._parts})
        check_protocols([merged], self.clips, self.spec.num_instances)
        return merged


def part_of(text: str) -> tuple[int, int]:
    """Return K and N of "K/N", the number of a part and how many there are.

    Raises:
        InputError: it is no such text.
    """
    match = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text)
    if match is None or int(match[1]) > int(match[2]):
        raise InputError(f"part {text!r}: expected K/N with K from 1 to N, as 1/4")
    return int(match[1]), int(match[2])


def open_each(path: Path) -> list[CacheReader]:
    """Open the parts that a file lists, finished or not, each by itself.

    Raises:
        MissingDataError: a part is not there.
        InputError: the file lists no parts.
        CacheMismatchError: a part is another cache than was listed.
    """
    return [open_listed(path, "a part", entry, _REMEDY, open_single) for entry in _read(path)]


def open_one(path: Path) -> CacheReader:
    """Open a cache that is no join, see `ifcar.cache.open`."""
    place = place_of(path)
    if not place.name.endswith(PARTS_SUFFIX):
        return open_single(place)
    return PartsReader(place, open_each(place))


def part_places(path: Path) -> list[Path]:
    """Return where the parts that a file lists are. Raises MissingDataError for no file, InputError for no list."""
    return [place_listed(path, entry) for entry in _read(path)]


def write_parts(caches: Sequence[Path], out: Path) -> PartsReader:
    """Write the file that lists the parts of a cache, and return that cache, open.

    Args:
        caches: the parts, where they are.
        out: the file.

    Raises:
        MissingDataError: a part is not there.
        InputError, CacheMismatchError: they are not the parts of one cache, see `PartsReader`, or the file is another.
    """
    check_listing_gives_way(out, "parts_version")
    reader = PartsReader(out, [open_single(cache) for cache in caches])
    for name in reader.protocol_names():
        reader.protocol(name)
    entries = [{"cache": listed(part.path, out), "fingerprint": part.fingerprint} for part in reader._parts]
    out.parent.mkdir(parents=True, exist_ok=True)
    content = {"parts_version": PARTS_VERSION, "parts": entries}
    write_atomic(out, (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())
    return reader


def _read(path: Path) -> Sequence[Mapping[str, Any]]:
    if isinstance(path, Address):
        raise InputError(f"{path}: a list of parts is read on this machine, its parts anywhere; fetch the file")
    if not path.exists():
        raise MissingDataError(f"there is no list of parts at {path}; make one with `ifcar cache parts`")
    text = read_text(path)
    try:
        content = json.loads(text)
        version, entries = content["parts_version"], [dict(entry) for entry in content["parts"]]
        is_list = bool(entries) and all(isinstance(entry[key], str) for entry in entries for key in _ENTRY)
    except (KeyError, TypeError, ValueError):
        is_list = False
    if not is_list:
        raise InputError(
            f"{path}: not a list of parts; expected JSON with parts_version and, for each of parts, cache and "
            "fingerprint, as `ifcar cache parts` writes it"
        )
    if version != PARTS_VERSION:
        raise InputError(f"{path}: a list of parts of version {version!r}; this ifcar reads {PARTS_VERSION}")
    return entries


def _in_order(parts: Sequence[CacheReader]) -> list[CacheReader]:
    """Return the parts by their numbers, where they have some.

    Raises:
        InputError: one of a whole is missing, or some are of no whole or another one.
    """
    said = [part.environment.get(PART) for part in parts]
    if all(text is None for text in said):
        return list(parts)
    alone = next((part for part, text in zip(parts, said, strict=True) if text is None), None)
    if alone is not None:
        numbered = next(part for part, text in zip(parts, said, strict=True) if text is not None)
        raise InputError(f"{numbered.path} is part {numbered.environment[PART]} of a cache, and {alone.path} is none")
    numbers = [part_of(str(text)) for text in said]
    for part in parts[1:]:
        if part.environment.get(WHOLE) != parts[0].environment.get(WHOLE):
            raise CacheMismatchError(
                f"{parts[0].path} and {part.path} are parts of two caches, extracted with other options or from other "
                "files"
            )
    (_, of), known = numbers[0], {number for number, _ in numbers}
    if {of for _, of in numbers} != {of}:
        raise InputError(f"the parts are of {' and '.join(sorted({f'{o} parts' for _, o in numbers}))}; expected one")
    for number in range(1, of + 1):
        if number not in known:
            raise InputError(f"part {number}/{of} is missing; extract it with --part {number}/{of}, and name it too")
    return [parts[place] for place in sorted(range(len(parts)), key=lambda place: numbers[place])]


def _clips(parts: Sequence[CacheReader]) -> ClipTable:
    """Return the clips of all parts. Raises InputError when two have the same."""
    ids = [clip for part in parts for clip in part.clip_ids]
    if len(set(ids)) < len(ids):
        seen: dict[str, CacheReader] = {}
        for part in parts:
            for clip in part.clip_ids:
                if (other := seen.setdefault(clip, part)) is not part:
                    raise InputError(
                        f"clip {clip!r} is in {other.path} and in {part.path}; expected every clip in one part"
                    )
    segments = [name for part in parts for name in part.clips.segments]
    cameras = [name for part in parts for name in part.clips.cameras]
    return ClipTable.of({IDS: ids, SEGMENTS: segments, CAMERAS: cameras})


def _environment(parts: Sequence[CacheReader]) -> dict[str, Any]:
    """Return what the parts were made with; where they differ, all of it."""
    found: dict[str, Any] = {}
    names = dict.fromkeys(name for part in parts for name in part.environment if name not in (PART, WHOLE))
    for name in names:
        values = list(dict.fromkeys(str(p.environment[name]) for p in parts if name in p.environment))
        found[name] = parts[0].environment[name] if len(values) == 1 else ", ".join(values)
    return found


def _check_protocol_names(parts: Sequence[CacheReader]) -> None:
    first = parts[0]
    for part in parts[1:]:
        for has, lacks in ((first, part), (part, first)):
            if more := set(has.protocol_names()) - set(lacks.protocol_names()):
                raise CacheMismatchError(
                    f"{has.path} has the protocol {min(more)!r} and {lacks.path} has not; run its `ifcar extract` "
                    "again, which brings protocols up to date"
                )
