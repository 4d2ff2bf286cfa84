import pickle
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from cache_cases import IDENTITY, SPEC, block_arrays, clip_names, create_writer, fill, make_cache, protocols

from ifcar.cache import shards
from ifcar.cache.arrays import CacheSpec
from ifcar.cache.layout import protocol_arrays, protocol_attributes
from ifcar.cache.open import open_cache
from ifcar.cache.schema import Status
from ifcar.errors import CacheDamageError, CacheMismatchError, InputError, MissingDataError

CLIPS, VIEWS = 330, 2  # 660 rows: two full shards and one of 148 rows


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("reading") / "c.zarr", CLIPS, VIEWS)


@pytest.fixture(scope="module")
def zstd_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("zstd") / "z.zarr", CLIPS, VIEWS, compression="zstd")


def random_rows() -> np.ndarray[Any, np.dtype[np.int64]]:
    rng = np.random.default_rng(3)
    rows = rng.integers(0, CLIPS * VIEWS, 300)
    return np.concatenate([rows, rows[:20], [659, 658, 512, 511, 256, 255, 0, 0], np.arange(600, 660)])


@pytest.mark.parametrize("name", SPEC.names())
def test_rows_equal_zarrs_own_indexing_in_any_order_with_doubles(cache: Path, name: str) -> None:
    rows = random_rows()
    oracle = zarr.open_group(cache, mode="r")[name].oindex[rows]
    found = open_cache(cache).read_rows(name, rows)
    assert found.dtype == oracle.dtype
    assert np.array_equal(found, oracle)


@pytest.mark.parametrize("name", SPEC.names())
def test_stored_rows_equal_what_was_written(cache: Path, name: str) -> None:
    written = block_arrays(range(CLIPS * VIEWS))[0][name]
    assert np.array_equal(open_cache(cache).read_rows(name, np.arange(CLIPS * VIEWS)), written)


@pytest.mark.slow
def test_zstd_cache_reads_equal(cache: Path, zstd_cache: Path) -> None:
    plain, packed, rows = open_cache(cache), open_cache(zstd_cache), random_rows()
    oracle = zarr.open_group(zstd_cache, mode="r")
    for name in SPEC.names():
        found = packed.read_rows(name, rows)
        assert np.array_equal(found, plain.read_rows(name, rows))
        assert np.array_equal(found, oracle[name].oindex[rows])


def test_plain_zarr_opens_and_lists_everything_without_warnings(cache: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(cache, mode="r")
        names = {name for name, _ in group.members(max_depth=None)}
        ids = group["clips/ids"][...]
        targets = group["protocols/compositional/targets"][...]
        values = {name: group[name][...] for name in SPEC.names()}
    assert {"clips/ids", "protocols/5-shot/split", *SPEC.names()} <= names
    assert [str(i) for i in ids] == clip_names(CLIPS)
    assert np.array_equal(targets, protocols(CLIPS)[0].labels.targets)
    assert group.attrs["identity"] == IDENTITY
    assert group.attrs["format_version"] == 2
    assert values["instance_features"].any()


def test_all_zero_rows_are_stored(cache: Path) -> None:
    for name in ("instance_features", "frame_features", "grid_features"):
        (shard,) = cache.glob(f"{name}/c.0.*")
        index = np.frombuffer(shard.read_bytes()[-4100:-4], dtype="<u8").reshape(256, 2)
        assert (index != 2**64 - 1).all()
        assert not open_cache(cache).read_rows(name, np.array([7])).any()


def test_metadata_and_protocols_come_back(cache: Path) -> None:
    reader = open_cache(cache)
    assert (reader.num_clips, reader.num_views, reader.num_rows) == (CLIPS, VIEWS, CLIPS * VIEWS)
    assert reader.spec == SPEC
    assert reader.identity == IDENTITY
    assert reader.environment == {"numpy": "2"}
    assert reader.clip_ids == clip_names(CLIPS)
    assert reader.protocol_names() == ["5-shot", "compositional"]
    for table in protocols(CLIPS):
        stored = reader.protocol(table.name)
        assert protocol_attributes(stored) == protocol_attributes(table)
        for name, values in protocol_arrays(table).items():
            assert protocol_arrays(stored)[name].dtype == values.dtype
            assert np.array_equal(protocol_arrays(stored)[name], values)
    with pytest.raises(InputError, match="did you mean 'compositional'"):
        reader.protocol("compositonal")


def test_failed_rows_are_listed_with_clip_view_and_reason(cache: Path) -> None:
    (failure,) = open_cache(cache).failures()
    assert (failure.row, failure.clip_id, failure.view) == (5, "clip-0002", 1)
    assert failure.reason == "no frames in 5.webm"
    assert open_cache(cache).status()[5] == Status.FAILED
    assert open_cache(cache).is_complete()


def test_uncommitted_rows_are_pending_and_zero_whatever_the_arrays_say(tmp_path: Path) -> None:
    path = make_cache(tmp_path / "c.zarr", 300)
    (path / "commits" / "000001.json").unlink()
    reader = open_cache(path)
    assert zarr.open_group(path, mode="r")["status"][299] == Status.DONE
    assert (reader.status()[256:] == Status.PENDING).all()
    assert not reader.table("boxes")[256:].any()
    assert not reader.is_complete()
    with pytest.raises(InputError, match=r"row 299 \(clip 'clip-é', view 0\) is not extracted yet"):
        reader.read_rows("instance_features", np.array([0, 299]))


def test_out_is_filled_in_place_and_must_fit(cache: Path) -> None:
    reader, rows = open_cache(cache), np.array([300, 2, 300])
    out = np.full((3, 2, 3), -1, dtype=np.float16)
    assert reader.read_rows("frame_features", rows, out) is out
    assert np.array_equal(out, reader.read_rows("frame_features", rows))
    for wrong in (out[:2], out.astype(np.float32), np.empty((3, 3, 2), np.float16).transpose(0, 2, 1)):
        with pytest.raises(InputError, match="frame_features: out is"):
            reader.read_rows("frame_features", rows, wrong)


def test_no_rows_give_an_empty_array(cache: Path) -> None:
    assert open_cache(cache).read_rows("instance_features", np.array([], dtype=np.int64)).shape == (0, 2, 2, 3, 2, 2)


@pytest.mark.parametrize("rows", [[-1], [CLIPS * VIEWS], [0.5], [[0]]])
def test_impossible_rows_are_refused(cache: Path, rows: list[Any]) -> None:
    with pytest.raises(InputError, match="row"):
        open_cache(cache).read_rows("boxes", np.array(rows))


def test_an_array_the_cache_lacks_is_refused_naming_those_it_has(tmp_path: Path) -> None:
    spec = CacheSpec.standard(num_frames=2, num_steps=2, num_instances=1)
    reader = open_cache(make_cache(tmp_path / "c.zarr", 3, spec=spec))
    assert reader.array_bytes("boxes") == 3 * 2 * 1 * 4 * 4
    with pytest.raises(CacheMismatchError, match=r"has no array 'instance_features'; there are boxes, categories"):
        reader.read_rows("instance_features", np.array([0]))
    with pytest.raises(InputError, match="use read_rows"):
        open_cache(make_cache(tmp_path / "d.zarr", 3)).table("frame_features")


def test_what_is_no_cache_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="ifcar extract"):
        open_cache(tmp_path / "none.zarr")
    with pytest.raises(InputError, match=r"holds no zarr\.json"):
        open_cache(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="not a cache"):
        open_cache(tmp_path / "notes.txt")
    zarr.open_group(tmp_path / "other.zarr", mode="w", attributes={"a": 1})
    with pytest.raises(InputError, match="not an ifcar cache"):
        open_cache(tmp_path / "other.zarr")
    zarr.open_group(tmp_path / "later.zarr", mode="w", attributes={"format_version": 3})
    with pytest.raises(InputError, match="format version 3, this ifcar reads versions 1 and 2"):
        open_cache(tmp_path / "later.zarr")


def test_a_pickled_reader_opens_the_same_cache(cache: Path) -> None:
    reader = open_cache(cache)
    again = pickle.loads(pickle.dumps(reader))
    rows = np.array([9, 400])
    assert np.array_equal(again.read_rows("frame_features", rows), reader.read_rows("frame_features", rows))


def test_threads_share_a_reader_that_keeps_one_shard_open(cache: Path) -> None:
    reader = open_cache(cache)
    reader._pool = shards.ShardPool(cache, 256, max_open=1)  # type: ignore[attr-defined]
    reader._sharded = {n: reader.sharded(n) for n in ("instance_features", "frame_features")}  # type: ignore[attr-defined]
    expected = block_arrays(range(CLIPS * VIEWS))[0]
    wrong: list[str] = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(40):
            rows = rng.integers(0, CLIPS * VIEWS, 20)
            for name in ("instance_features", "frame_features"):
                if not np.array_equal(reader.read_rows(name, rows), expected[name][rows]):
                    wrong.append(name)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_missing_shard_is_named_by_the_reader(tmp_path: Path) -> None:
    writer = create_writer(tmp_path / "c.zarr", 20)
    fill(writer)
    next((tmp_path / "c.zarr").glob("frame_features/c.*")).unlink()
    with pytest.raises(CacheDamageError, match=r"frame_features, row 3 \(clip 'clip-0003', view 0\).*is missing"):
        open_cache(tmp_path / "c.zarr").read_rows("frame_features", np.array([3]))
