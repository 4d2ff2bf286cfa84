import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from cache_cases import SPEC, block_arrays, clip_names, create_writer, make_cache, protocols

from ifcar.cache.damage import DamageKind
from ifcar.cache.export import export_hdf5
from ifcar.cache.layout import protocol_arrays, protocol_attributes
from ifcar.cache.open import open_cache
from ifcar.cache.repair import repair_cache
from ifcar.cache.verify import verify_cache
from ifcar.errors import CacheDamageError, CacheMismatchError, IfcarError, InputError

CLIPS, VIEWS = 140, 2


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("cache") / "c.zarr", CLIPS, VIEWS)


@pytest.fixture
def exported(cache: Path, tmp_path: Path) -> Path:
    export_hdf5(cache, tmp_path / "c.h5")
    return tmp_path / "c.h5"


def test_export_reads_back_equal_through_the_same_interface(cache: Path, exported: Path) -> None:
    ours, theirs = open_cache(cache), open_cache(exported)
    rows = np.concatenate([np.random.default_rng(0).integers(0, 280, 50), [279, 0, 0]])
    for name in SPEC.names():
        found = theirs.read_rows(name, rows)
        assert found.dtype == ours.read_rows(name, rows).dtype
        assert np.array_equal(found, ours.read_rows(name, rows))
        assert theirs.array_bytes(name) == ours.array_bytes(name)
    assert theirs.manifest == ours.manifest
    assert (theirs.spec, theirs.identity, theirs.environment) == (ours.spec, ours.identity, ours.environment)
    assert theirs.fingerprint == ours.fingerprint
    assert theirs.clip_ids == clip_names(CLIPS)
    assert theirs.failures() == ours.failures()
    assert len(theirs.failures()) == 1
    assert np.array_equal(theirs.status(), ours.status())
    assert theirs.is_complete()
    assert theirs.protocol_names() == ours.protocol_names()
    for table in protocols(CLIPS):
        stored = theirs.protocol(table.name)
        assert protocol_attributes(stored) == protocol_attributes(table)
        for name, values in protocol_arrays(table).items():
            assert np.array_equal(protocol_arrays(stored)[name], values)
    with pytest.raises(CacheMismatchError, match="has no array 'masks'"):
        theirs.read_rows("masks", rows)


def test_plain_h5py_reads_an_export(exported: Path) -> None:
    with h5py.File(exported) as file:
        assert np.array_equal(file["boxes"][...], block_arrays(range(280))[0]["boxes"])
        assert file["instance_features"].chunks == (1, 2, 2, 3, 2, 2)
        assert list(file["clip_ids"].asstr()[...]) == clip_names(CLIPS)
        assert file["protocols/compositional"].attrs["label_kind"] == "single"


def test_exporting_an_export_gives_the_same_rows(exported: Path, tmp_path: Path) -> None:
    export_hdf5(exported, tmp_path / "again.hdf5")
    rows = np.arange(280)
    again = open_cache(tmp_path / "again.hdf5").read_rows("grid_features", rows)
    assert np.array_equal(again, block_arrays(range(280))[0]["grid_features"])


def test_zstd_cache_exports_its_compression_as_provenance(tmp_path: Path) -> None:
    path = make_cache(tmp_path / "z.zarr", 5, compression="zstd")
    export_hdf5(path, tmp_path / "z.h5")
    assert open_cache(tmp_path / "z.h5").manifest == open_cache(path).manifest


def test_an_unfinished_cache_is_not_exported(tmp_path: Path) -> None:
    create_writer(tmp_path / "c.zarr", 5)
    with pytest.raises(InputError, match="lacks 5 of 5 rows"):
        export_hdf5(tmp_path / "c.zarr", tmp_path / "c.h5")
    with pytest.raises(InputError, match=r"ending in \.h5 or \.hdf5"):
        export_hdf5(tmp_path / "c.zarr", tmp_path / "c.txt")
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.zarr"]


def test_only_an_export_is_replaced(cache: Path, exported: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.h5"
    with h5py.File(own, "w") as file:
        file["mine"] = np.arange(3)
    (tmp_path / "text.h5").write_text("mine")
    export_hdf5(make_cache(tmp_path / "b.zarr", 5), tmp_path / "other.h5")
    for path in (own, tmp_path / "text.h5", tmp_path / "other.h5"):
        before = path.read_bytes()
        with pytest.raises(InputError, match="is there, and is no export of this cache; name another file"):
            export_hdf5(cache, path)
        assert path.read_bytes() == before
    time = exported.stat().st_mtime_ns
    export_hdf5(cache, exported)
    assert exported.stat().st_mtime_ns > time


def test_a_failed_export_leaves_the_older_file_and_no_other(cache: Path, exported: Path, tmp_path: Path) -> None:
    before = exported.read_bytes()
    broken = shutil.copytree(cache, tmp_path / "b.zarr")
    next(broken.glob("frame_features/c.0*")).unlink()
    with pytest.raises(CacheDamageError):
        export_hdf5(broken, exported)
    assert exported.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b.zarr", "c.h5"]


def test_a_damaged_row_of_an_export_is_named(exported: Path) -> None:
    with h5py.File(exported) as file:
        offset = file["instance_features"].id.get_chunk_info_by_coord((9, 0, 0, 0, 0, 0)).byte_offset
    data = bytearray(exported.read_bytes())
    data[offset + 6] ^= 0x40
    exported.write_bytes(data)
    with pytest.raises(CacheDamageError, match=r"instance_features, row 9 \(clip 'clip-0004', view 1\)"):
        open_cache(exported).read_rows("instance_features", np.array([8, 9]))
    (damage,) = verify_cache(exported).damages
    assert (damage.kind, damage.row, damage.view) == (DamageKind.ROW, 9, 1)
    with pytest.raises(InputError, match="export it again"):
        repair_cache(exported)


def test_garbage_and_foreign_hdf5_files_are_refused(tmp_path: Path, exported: Path) -> None:
    assert verify_cache(exported).ok
    (tmp_path / "g.h5").write_bytes(b"not hdf5")
    with pytest.raises(CacheDamageError, match="does not open as HDF5"):
        open_cache(tmp_path / "g.h5")
    assert not verify_cache(tmp_path / "g.h5").ok
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match="not an ifcar cache"):
        open_cache(tmp_path / "f.h5")
    (tmp_path / "t.h5").write_bytes(exported.read_bytes()[:-5000])
    with pytest.raises(IfcarError):
        open_cache(tmp_path / "t.h5").read_rows("grid_features", np.arange(280))
