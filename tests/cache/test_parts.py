"""Parts of a cache read as one: every row, table and protocol is that of the cache whole, wherever it is cut."""

from __future__ import annotations

import itertools
import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cache_cases import PROVENANCE, SPEC, make_cache, protocols
from fixtures.buckets import BUCKET, Store, settings
from fixtures.processes import files_below

import ifcar
from ifcar.cache.addresses import place_of
from ifcar.cache.block_cache import FOLDER
from ifcar.cache.export import export_hdf5
from ifcar.cache.joining import join_caches
from ifcar.cache.open import open_cache
from ifcar.cache.parts import PART, WHOLE, PartsReader, part_of, part_places, write_parts
from ifcar.cache.protocols import protocol_arrays, protocol_attributes
from ifcar.cache.reader import CacheReader
from ifcar.cache.repair import repair_cache
from ifcar.cache.schema import Provenance, Status
from ifcar.cache.segments import Stream
from ifcar.cache.verify import verify_cache
from ifcar.cache.writer import CacheWriter
from ifcar.errors import CacheMismatchError, IfcarError, InputError, MissingDataError
from ifcar.pipelines.folders import only_cache

CLIPS = 40


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ids = [f"clip-{k}" for k in range(CLIPS)]
    about = {"clip_ids": ids, "segments": [f"moment {k // 2}" for k in range(CLIPS)], "cameras": ["a", "b"] * 20}
    return make_cache(tmp_path_factory.mktemp("whole") / "w.zarr", CLIPS, 2, protocols=_tables(), **about)


def _tables() -> list[Any]:
    """Return the protocols of the cases, alike for the clips of a segment."""
    pairs = np.arange(CLIPS) // 2 * 2
    single, multi = (table.of_clips(pairs) for table in protocols(CLIPS))
    return [single, replace(multi, spaces=(replace(multi.labels, name="several"),))]


def write_part(path: Path, whole: Path, clips: slice, *, blocks: int | None = None, **options: Any) -> Path:
    """Write some clips of a cache as a cache of their own; `blocks`: how many are committed."""
    reader = open_cache(whole)
    places = np.arange(reader.num_clips)[clips]
    rows = reader.rows_of(places).ravel()
    given: dict[str, Any] = {
        "provenance": PROVENANCE,
        "clip_ids": [reader.clip_ids[place] for place in places],
        "segments": [reader.clips.segments[place] for place in places],
        "cameras": [reader.clips.cameras[place] for place in places],
        "protocols": [reader.protocol(name).of_clips(places) for name in reader.protocol_names()],
    }
    writer = CacheWriter.create(path, spec=SPEC, num_views=2, **{**given, **options})
    failed = {failure.row: failure.reason for failure in reader.failures()}
    for block in writer.pending_blocks()[:blocks]:
        own = rows[writer.rows_of(block)]
        arrays = {name: reader.read_rows(name, own) for name in SPEC.names()}
        lost = {
            int(k + writer.rows_of(block).start): failed[row] for k, row in enumerate(own.tolist()) if row in failed
        }
        writer.write_block(block, arrays, lost)
    return path


def cut(folder: Path, whole: Path, *places: int) -> list[Path]:
    """Write the parts of a cache that is cut before these clips."""
    edges = [0, *places, CLIPS]
    return [write_part(folder / f"{a}.zarr", whole, slice(a, b)) for a, b in itertools.pairwise(edges)]


def assert_same(parts: CacheReader, whole: CacheReader) -> None:
    assert parts.fingerprint == whole.fingerprint and parts.identity == whole.identity
    assert parts.environment == whole.environment and parts.clips == whole.clips
    assert parts.failures() == whole.failures() != []
    assert parts.protocol_names() == whole.protocol_names()
    for name in whole.protocol_names():
        ours, theirs = parts.protocol(name), whole.protocol(name)
        assert protocol_attributes(ours) == protocol_attributes(theirs)
        for array, values in protocol_arrays(theirs).items():
            np.testing.assert_array_equal(protocol_arrays(ours)[array], values)
    rows = np.random.default_rng(0).integers(0, whole.num_rows, 120)
    for array in SPEC.arrays:
        if not array.sharded:
            np.testing.assert_array_equal(parts.table(array.name), whole.table(array.name))
        parts.advise(array.name, rows) if array.sharded else None
        np.testing.assert_array_equal(parts.read_rows(array.name, rows), whole.read_rows(array.name, rows))


@pytest.mark.slow
def test_parts_read_as_the_whole_wherever_it_is_cut(whole: Path, tmp_path: Path) -> None:
    write_parts(cut(tmp_path, whole, 1, 17, 18), tmp_path / "w.parts.json").close()
    found = pickle.loads(pickle.dumps(open_cache(tmp_path / "w.parts.json")))
    assert_same(found, open_cache(whole))
    assert_same(ifcar.open_cache([str(place) for place in part_places(tmp_path / "w.parts.json")]).reader, found)


def test_an_export_of_parts_holds_what_the_export_of_the_whole_does(whole: Path, tmp_path: Path) -> None:
    write_parts(cut(tmp_path, whole, 7), tmp_path / "w.parts.json").close()
    export_hdf5(tmp_path / "w.parts.json", tmp_path / "w.h5")
    assert_same(open_cache(tmp_path / "w.h5"), open_cache(whole))
    first = tmp_path / "0.h5"
    export_hdf5(tmp_path / "0.zarr", first)
    assert_same(open_cache([first, tmp_path / "7.zarr"]), open_cache(whole))


def test_groups_that_each_part_numbers_for_itself_are_told_by_their_names(whole: Path, tmp_path: Path) -> None:
    tables = [open_cache(whole).protocol(name) for name in open_cache(whole).protocol_names()]
    first, second = ([table.of_clips(np.arange(CLIPS)[clips]) for table in tables] for clips in (HEAD, TAIL))
    turned = np.array([1, 0, -1], np.int32)
    second = [
        replace(table, groups=turned[table.groups], group_names=table.group_names[::-1]) for table in second
    ]  # fmt: skip
    one = write_part(tmp_path / "a.zarr", whole, HEAD, protocols=first)
    two = write_part(tmp_path / "b.zarr", whole, TAIL, protocols=second)
    assert_same(open_cache([one, two]), open_cache(whole))


HEAD, TAIL = slice(0, 10), slice(10, None)


def refused(error: type[IfcarError], parts: Sequence[Path]) -> str:
    with pytest.raises(error) as said:
        open_cache(parts)
    assert "\n" not in str(said.value)
    return str(said.value)


@pytest.mark.slow
def test_what_is_not_one_cache_is_refused_in_a_line_that_says_where(whole: Path, tmp_path: Path) -> None:
    head = write_part(tmp_path / "head.zarr", whole, HEAD)

    def tail(name: str, clips: slice = TAIL, **options: Any) -> list[Path]:
        return [head, write_part(tmp_path / name, whole, clips, **options)]

    other = Provenance(identity={**PROVENANCE.identity, "crop": [112, 112]})
    said = refused(CacheMismatchError, tail("other.zarr", provenance=other))
    assert "other.zarr is no part of the same cache: identity.crop is [224, 224] in" in said and "[112, 112] in" in said
    said = refused(InputError, tail("twice.zarr", slice(9, None)))
    assert "clip 'clip-9' is in" in said and "head.zarr" in said and "twice.zarr" in said
    assert "half.zarr lacks 60 of 60 rows; run the same" in refused(InputError, tail("half.zarr", blocks=0))
    assert "has not; run its" in refused(CacheMismatchError, tail("fewer.zarr", protocols=[]))
    tables = [open_cache(whole).protocol(name).of_clips(np.arange(10, CLIPS)) for name in ("5-shot", "compositional")]
    fewer = replace(tables[1].labels, classes=("push", "pull", "lift"))
    parts = tail("classes.zarr", protocols=[tables[0], replace(tables[1], spaces=(fewer,))])
    with pytest.raises(CacheMismatchError, match=r"'compositional' has other label spaces, classes .*classes\.zarr"):
        write_parts(parts, tmp_path / "w.parts.json")
    assert not (tmp_path / "w.parts.json").exists()
    assert "found none" in refused(InputError, [])
    assert "no cache at" in refused(MissingDataError, [head, tmp_path / "none.zarr"])


def numbered(number: str, whole: str = "f") -> Provenance:
    return replace(PROVENANCE, environment={**PROVENANCE.environment, PART: number, WHOLE: whole})


@pytest.mark.slow
def test_numbered_parts_come_in_their_order_and_all_of_them(whole: Path, tmp_path: Path) -> None:
    name = open_cache(whole).fingerprint
    spans = {1: slice(0, 10), 2: slice(10, 12), 3: slice(12, None)}
    parts = [
        write_part(tmp_path / f"{k}.zarr", whole, span, provenance=numbered(f"{k}/3", name))
        for k, span in spans.items()
    ]
    assert_same(open_cache(parts[::-1]), open_cache(whole))
    assert refused(InputError, [parts[2], parts[0]]).startswith("part 2/3 is missing; extract it with --part 2/3")
    plain = write_part(tmp_path / "plain.zarr", whole, slice(10, None))
    assert "1.zarr is part 1/3 of a cache, and" in refused(InputError, [parts[0], plain])
    strange = write_part(tmp_path / "s.zarr", whole, slice(10, None), provenance=numbered("2/3", "g"))
    assert "are parts of two caches" in refused(CacheMismatchError, [parts[0], strange])
    halves = [write_part(tmp_path / "h.zarr", whole, TAIL, provenance=numbered("2/2", name))]
    assert "of 2 parts and 3 parts" in refused(InputError, [parts[0], *halves])


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/", "-1/2", "1/4/2", "1 / 4", "", "a/b", "1/9999999"])
def test_a_part_is_k_of_n(text: str) -> None:
    assert part_of("4/4") == (4, 4)
    with pytest.raises(InputError, match="expected K/N with K from 1 to N, as 1/4"):
        part_of(text)


@pytest.mark.slow
def test_a_list_of_parts_finds_them_from_its_own_folder_and_names_what_is_gone(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "lab" / "b").mkdir(parents=True)
    parts = cut(tmp_path / "lab" / "b", whole, 7)
    write_parts(parts, tmp_path / "lab" / "w.parts.json").close()
    shutil.move(tmp_path / "lab", tmp_path / "moved")
    place = tmp_path / "moved" / "w.parts.json"
    assert_same(open_cache(place), open_cache(whole))
    shutil.move(tmp_path / "moved" / "b" / "7.zarr", tmp_path / "moved" / "7.zarr")
    with pytest.raises(MissingDataError, match=r"w\.parts\.json: a part: there is no cache at .*b/7\.zarr; list its"):
        open_cache(place)
    write_part(tmp_path / "moved" / "b" / "7.zarr", whole, slice(8, None))
    with pytest.raises(CacheMismatchError, match=r"7\.zarr is another cache than is listed; list its parts anew"):
        open_cache(place)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"parts_version": 1}', b'{"parts_version": 1, "parts": []}', b"\xff",
     b'{"parts_version": 1, "parts": [{"cache": "c.zarr"}]}', b'{"parts_version": 1, "parts": [{"cache": 1, "f": 2}]}',
     b'{"parts_version": 1, "parts": ["c.zarr"]}', b'{"parts_version": 2, "parts": [{"cache":"c","fingerprint":"f"}]}'],
)  # fmt: skip
def test_a_list_that_is_none_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.parts.json").write_bytes(content)
    with pytest.raises(InputError, match=r"w\.parts\.json.*(not a list of parts|version 2|UTF-8)") as said:
        open_cache(tmp_path / "w.parts.json")
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("use", [open_cache, repair_cache, part_places])
def test_a_list_that_is_not_there_or_in_a_bucket_is_one_line(use: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no list of parts at .*w\.parts\.json; make one with"):
        use(tmp_path / "w.parts.json")
    with pytest.raises(InputError, match=r"s3://lab/w\.parts\.json: a list of parts is read on this machine"):
        use(place_of("s3://lab/w.parts.json"))


@pytest.mark.slow
def test_verification_names_the_damaged_part_and_repair_drops_its_blocks_alone(whole: Path, tmp_path: Path) -> None:
    write_parts(cut(tmp_path, whole, 7), tmp_path / "w.parts.json").close()
    place, told = tmp_path / "w.parts.json", list[tuple[int, int]]()
    report = verify_cache(place, lambda done, total: told.append((done, total)))
    assert report.ok and report.num_rows == report.num_rows_checked == 2 * CLIPS and told == [(1, 2), (2, 2)]
    shard = tmp_path / "7.zarr" / "instance_features" / "c.0.0.0.0.0.0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    report = verify_cache(place)
    assert [own.path for own in report.damages] == [str(shard)]
    kept = files_below(tmp_path / "0.zarr")
    assert repair_cache(place) == {tmp_path / "0.zarr": [], tmp_path / "7.zarr": [0]}
    assert files_below(tmp_path / "0.zarr") == kept and verify_cache(tmp_path / "7.zarr").ok
    for own, rows in ((place, 2 * CLIPS), (tmp_path / "7.zarr", 66)):  # what is not extracted yet is no damage
        report = verify_cache(own)
        assert report.ok and (report.num_pending, report.num_rows) == (66, rows)
    with pytest.raises(InputError, match=r"7\.zarr lacks 66 of 66 rows"):
        open_cache(place)


def test_repair_changes_no_part_where_a_damaged_one_cannot_be_repaired(whole: Path, tmp_path: Path) -> None:
    cut(tmp_path, whole, 7)
    export = tmp_path / "0.h5"
    export_hdf5(tmp_path / "0.zarr", export)
    write_parts([export, tmp_path / "7.zarr"], tmp_path / "w.parts.json").close()
    assert repair_cache(tmp_path / "w.parts.json") == {export: [], tmp_path / "7.zarr": []}
    with h5py.File(export) as file:
        offset = file["instance_features"].id.get_chunk_info_by_coord((9, 0, 0, 0, 0, 0)).byte_offset
    for path, place in ((export, offset), (tmp_path / "7.zarr" / "boxes" / "c.0.0.0.0", 0)):
        data = bytearray(path.read_bytes())
        data[place + 6] ^= 0x40
        path.write_bytes(data)
    before = files_below(tmp_path)
    with pytest.raises(InputError, match=r"0\.h5 is an export and cannot be repaired"):
        repair_cache(tmp_path / "w.parts.json")
    assert files_below(tmp_path) == before


def test_a_list_of_parts_is_the_only_cache_beside_its_parts(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IFCAR_CACHES", str(tmp_path))
    cut(tmp_path, whole, 7)
    with pytest.raises(InputError, match=r"several caches.*0\.zarr.*7\.zarr"):
        only_cache(None)
    (tmp_path / "w.parts.json").write_text("not a list")
    with pytest.raises(InputError, match=r"several caches.*0\.zarr.*7\.zarr.*w\.parts\.json"):
        only_cache(None)
    with pytest.raises(InputError, match=r"w\.parts\.json: is there and is something else; name another file"):
        write_parts([tmp_path / "0.zarr", tmp_path / "7.zarr"], tmp_path / "w.parts.json")
    assert (tmp_path / "w.parts.json").read_text() == "not a list"
    (tmp_path / "w.parts.json").unlink()
    for _ in range(2):  # an older list gives way
        write_parts([tmp_path / "0.zarr", tmp_path / "7.zarr"], tmp_path / "w.parts.json").close()
    assert only_cache(None) == tmp_path / "w.parts.json"


@pytest.mark.slow
def test_a_join_takes_parts_and_exports_as_it_takes_the_cache_itself(whole: Path, tmp_path: Path) -> None:
    write_parts(cut(tmp_path, whole, 7), tmp_path / "w.parts.json").close()
    export_hdf5(whole, tmp_path / "w.h5")
    expected = join_caches({"a": Stream(cache=whole), "b": Stream(cache=whole)}, tmp_path / "0.join.json")
    for name in ("w.parts.json", "w.h5"):
        streams = {"a": Stream(cache=tmp_path / name), "b": Stream(cache=whole)}
        made = join_caches(streams, tmp_path / f"{name}.join.json")
        ours, theirs = open_cache(made.path), open_cache(expected.path)
        assert ours.fingerprint == theirs.fingerprint and ours.clips == theirs.clips
        rows = np.flatnonzero(theirs.status() == Status.DONE)
        for array in ("a/instance_features", "a/boxes"):
            np.testing.assert_array_equal(ours.read_rows(array, rows), theirs.read_rows(array, rows))


@pytest.mark.slow
def test_parts_in_a_bucket_read_as_the_whole(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore", reason="the extra `cloud` is not installed")
    here, away = cut(tmp_path, whole, 7)
    store = Store()
    store.objects = {f"away.zarr/{name}": data for name, data in files_below(away).items()}
    shutil.rmtree(away)
    monkeypatch.setenv(FOLDER, str(tmp_path / "blocks"))
    with store.serve() as port:
        for name, value in settings(port).items():
            monkeypatch.setenv(name, value)
        address = Path(f"s3://{BUCKET}/away.zarr")
        write_parts([here, address], tmp_path / "w.parts.json").close()
        listed = json.loads((tmp_path / "w.parts.json").read_text())["parts"]
        assert [entry["cache"] for entry in listed] == ["0.zarr", f"s3://{BUCKET}/away.zarr"]
        reader = open_cache(tmp_path / "w.parts.json")
        assert isinstance(reader, PartsReader)
        assert_same(reader, open_cache(whole))
        reader.close()
        joined = join_caches({"a": Stream(cache=address), "b": Stream(cache=here)}, tmp_path / "w.join.json")
        assert json.loads(joined.path.read_text())["streams"]["a"]["cache"] == f"s3://{BUCKET}/away.zarr"
        read = open_cache(joined.path)
        done = np.flatnonzero(read.status() == Status.DONE)
        assert read.clip_ids == ["moment 3"] and read.read_rows("a/instance_features", done).any()
        read.close()
        del store.objects["away.zarr/commits/tables.json"]
        with pytest.raises(MissingDataError, match=f"stream 'a': s3://{BUCKET}/away.zarr"):
            join_caches({"a": Stream(cache=address)}, tmp_path / "x.join.json")
        with pytest.raises(InputError, match="a list of parts is read on this machine"):
            open_cache(Path(f"s3://{BUCKET}/w.parts.json"))
