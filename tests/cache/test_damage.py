import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from cache_cases import SPEC, block_arrays, create_writer, fill, make_cache, resume_writer

from ifcar.cache.commits import encode_commit, read_commit
from ifcar.cache.damage import DamageKind, VerifyReport
from ifcar.cache.durable import list_files
from ifcar.cache.open import open_cache
from ifcar.cache.repair import repair_cache
from ifcar.cache.verify import verify_cache
from ifcar.errors import CacheDamageError, IfcarError, InputError, MissingDataError

CLIPS = 270
FLIPS = int(os.environ.get("IFCAR_FLIPS", "100"))


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("intact") / "c.zarr", CLIPS)


@pytest.fixture
def cache(intact: Path, tmp_path: Path) -> Path:
    return shutil.copytree(intact, tmp_path / "c.zarr")


def flip(file: Path, offset: int, mask: int = 0x10) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= mask
    file.write_bytes(data)


def assert_same_files(path: Path, whole: Path) -> None:
    assert list_files(path) == list_files(whole)
    assert all((path / name).read_bytes() == (whole / name).read_bytes() for name in list_files(whole))


@pytest.mark.slow
def test_every_flipped_bit_is_reported_and_never_read_as_data(cache: Path) -> None:
    """Each file of the cache, then files at random; `IFCAR_FLIPS=1000` is the long form."""
    rng = np.random.default_rng(5)
    names = sorted(list_files(cache))
    expected = block_arrays(range(CLIPS))[0]
    chosen = names + rng.choice(names, FLIPS - len(names)).tolist()
    for name in chosen:
        file = cache / name
        original = file.read_bytes()
        offset, mask = int(rng.integers(len(original))), 1 << int(rng.integers(8))
        flip(file, offset, mask)
        report = verify_cache(cache)
        assert not report.ok, (name, offset, mask)
        if report.metadata_usable:
            assert name in {damage.path for damage in report.damages}, (name, offset, mask)
        try:
            reader = open_cache(cache)
            for array, values in expected.items():
                assert np.array_equal(reader.read_rows(array, np.arange(CLIPS)), values), (name, offset, mask)
        except IfcarError:
            pass
        file.write_bytes(original)
    assert verify_cache(cache).ok


def test_a_damaged_row_is_named_by_verify_and_by_the_reader(cache: Path) -> None:
    row_bytes = SPEC.row_bytes(["instance_features"]) + 4
    flip(cache / "instance_features/c.0.0.0.0.0.0", 17 * row_bytes + 20)
    (damage,) = verify_cache(cache).damages
    assert (damage.kind, damage.array, damage.row) == (DamageKind.ROW, "instance_features", 17)
    assert (damage.clip_id, damage.view, damage.block) == ("clip-0017", 0, 0)
    reader = open_cache(cache)
    for rows in ([17], [3, 17, 250], list(range(CLIPS))):
        with pytest.raises(CacheDamageError, match=r"instance_features, row 17 \(clip 'clip-0017', view 0\)"):
            reader.read_rows("instance_features", np.array(rows))
    assert reader.read_rows("instance_features", np.array([16, 18])).any()


def test_a_damaged_row_of_a_zstd_cache_is_named(tmp_path: Path) -> None:
    path = make_cache(tmp_path / "z.zarr", 20, compression="zstd")
    flip(next(path.glob("grid_features/c.0*")), 10)
    (damage,) = verify_cache(path).damages
    assert (damage.kind, damage.row) == (DamageKind.ROW, 0)
    with pytest.raises(CacheDamageError, match=r"grid_features, row 0 \(clip 'clip-0000', view 0\)"):
        open_cache(path).read_rows("grid_features", np.arange(20))


def test_a_damaged_index_is_reported_as_such(cache: Path) -> None:
    flip(cache / "frame_features/c.1.0.0", -30)
    (damage,) = verify_cache(cache).damages
    assert (damage.kind, damage.block) == (DamageKind.INDEX, 1)
    assert "row 256" in damage.problem
    with pytest.raises(CacheDamageError, match="index does not match its checksum"):
        open_cache(cache).read_rows("frame_features", np.array([260]))


def test_a_damaged_table_names_its_rows_and_leaves_the_features_readable(cache: Path) -> None:
    flip(cache / "boxes/c.1.0.0.0", 3)
    (damage,) = verify_cache(cache).damages
    assert (damage.kind, damage.array, damage.block) == (DamageKind.ROW, "boxes", 1)
    assert "row 256 (clip 'clip-0256', view 0) to row 269 (clip 'clip-é', view 0)" in damage.problem
    reader = open_cache(cache)
    with pytest.raises(CacheDamageError, match="boxes, row 256"):
        reader.table("boxes")
    assert reader.read_rows("frame_features", np.array([260])).any()


def test_truncated_missing_and_extra_files_are_told_apart(cache: Path) -> None:
    shard = cache / "grid_features/c.0.0.0.0.0"
    shard.write_bytes(shard.read_bytes()[:-1])
    (cache / "crop/c.0.0").unlink()
    (cache / "boxes/notes.txt").write_text("x")
    (cache / "commits/000001.json.partial").write_text("x")
    kinds = {damage.path: damage.kind for damage in verify_cache(cache).damages}
    assert kinds == {
        "grid_features/c.0.0.0.0.0": DamageKind.INDEX,
        "crop/c.0.0": DamageKind.MISSING,
        "boxes/notes.txt": DamageKind.STRAY,
        "commits/000001.json.partial": DamageKind.STRAY,
    }


def test_a_commit_record_of_another_block_or_cache_is_refused(cache: Path, tmp_path: Path) -> None:
    shutil.copy(cache / "commits/000000.json", cache / "commits/000001.json")
    with pytest.raises(CacheDamageError, match="belongs to another cache or block"):
        open_cache(cache)
    assert [(d.kind, d.block) for d in verify_cache(cache).damages] == [(DamageKind.COMMIT, 1)]


def test_status_that_contradicts_the_listed_failures_is_reported(cache: Path) -> None:
    record = read_commit(cache / "commits/000000.json")
    (failure,) = record.failures
    wrong = dataclasses.replace(record, failures=(dataclasses.replace(failure, row=6),))
    (cache / "commits/000000.json").write_bytes(encode_commit(wrong))
    report = verify_cache(cache)
    assert {damage.kind for damage in report.damages} == {DamageKind.STATUS}
    assert "row 5 (clip 'clip-0005', view 0) has status 2, expected 1" in report.damages[0].problem
    assert "row 6 (clip 'clip-0006', view 0) has status 1, expected 2" in report.damages[1].problem


@pytest.mark.parametrize(
    ("name", "kind"), [("frame_features/c.0.0.0", DamageKind.FOREIGN), ("boxes/c.0.0.0.0", DamageKind.ROW)]
)
def test_an_intact_file_of_another_run_is_reported(cache: Path, tmp_path: Path, name: str, kind: DamageKind) -> None:
    """CRC-32C over bytes that end in their own CRC-32C is a constant: only another digest tells them apart."""
    writer = create_writer(tmp_path / "other.zarr", CLIPS)
    writer.write_block(0, *block_arrays(range(256), seed=1))
    shutil.copy(tmp_path / "other.zarr" / name, cache / name)
    (damage,) = verify_cache(cache).damages
    assert (damage.kind, damage.path, damage.block) == (kind, name, 0)


def test_progress_counts_blocks(cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = verify_cache(cache, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert isinstance(report, VerifyReport)
    assert (report.num_rows, report.num_rows_checked, report.num_failed) == (CLIPS, CLIPS, 1)


def test_an_unfinished_cache_is_ok_and_its_pending_blocks_are_listed(cache: Path) -> None:
    (cache / "commits/000001.json").unlink()
    report = verify_cache(cache)
    assert report.ok
    assert (report.pending_blocks, report.num_rows_checked) == ((1,), 256)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "instance_features/c.0.0.0.0.0.0",
        "frame_features/c.0.0.0",
        "boxes/c.0.0.0.0",
        "status/c.0",
        "commits/000000.json",
    ],
)
def test_repair_drops_just_the_damaged_block_and_resume_restores_it(cache: Path, intact: Path, name: str) -> None:
    flip(cache / name, -9)
    (cache / "flip/c.7.0.partial").write_text("x")
    assert repair_cache(cache) == {cache: [0]}
    assert verify_cache(cache).ok
    writer = resume_writer(cache, CLIPS)
    assert writer.pending_blocks() == [0]
    fill(writer)
    assert_same_files(cache, intact)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "commits/zarr.json",
        "boxes/zarr.json",
        "clips/zarr.json",
        "protocols/zarr.json",
        "protocols/5-shot/targets/c.0.0",
        "commits/tables.json",
    ],
)
@pytest.mark.parametrize("removed", [False, True])
def test_repair_writes_metadata_anew_and_resume_the_protocols(
    cache: Path, intact: Path, name: str, removed: bool
) -> None:
    if removed:
        (cache / name).unlink()
    else:
        flip(cache / name, 4)
    with pytest.raises(IfcarError):
        open_cache(cache).protocol_names()
    assert repair_cache(cache) == {cache: []}
    assert resume_writer(cache, CLIPS).pending_blocks() == []
    assert_same_files(cache, intact)


@pytest.mark.parametrize("name", ["clips/ids/c.0", "zarr.json"])
def test_damage_beyond_repair_is_said_plainly(cache: Path, name: str) -> None:
    flip(cache / name, 40)
    assert not verify_cache(cache).metadata_usable
    with pytest.raises(CacheDamageError, match="beyond repair"):
        repair_cache(cache)
    (cache / name).unlink()
    assert not verify_cache(cache).ok


def test_verify_of_what_is_no_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError):
        verify_cache(tmp_path / "none")
    with pytest.raises(InputError):
        verify_cache(tmp_path)
