"""Caches read where they lie in object storage: the rows of the local cache, few requests, a bounded copy."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cache_cases import CLIPS_OF_THREE_BLOCKS, SPEC, make_cache
from fixtures.buckets import BUCKET, SECRET, Store, other_settings, settings
from fixtures.processes import call, files_below
from fixtures.something_else import write_dataset

from ifcar.cache.addresses import Address, place_of
from ifcar.cache.arrays import CacheSpec
from ifcar.cache.block_cache import BOUND, FOLDER, PIECE_BYTES, keep_within
from ifcar.cache.bucket import Bucket, ConflictError
from ifcar.cache.commits import TABLES_RECORD, commit_name
from ifcar.cache.open import open_cache
from ifcar.cache.push import push_cache
from ifcar.cache.verify import verify_cache
from ifcar.errors import CacheDamageError, InputError, MissingDataError

pytest.importorskip("obstore", reason="the extra `cloud` is not installed")
NAME = "c.zarr"
ADDRESS = Path(f"s3://{BUCKET}/{NAME}")  # as an option or a config gives it, with one slash
SHARD = "instance_features/c.1.0.0.0.0.0"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("local") / NAME, CLIPS_OF_THREE_BLOCKS)


@pytest.fixture
def store(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    store = Store()
    store.objects = {f"{NAME}/{name}": data for name, data in files_below(cache).items()}
    monkeypatch.setenv(FOLDER, str(tmp_path / "blocks"))
    with store.serve() as port:
        for name, value in settings(port).items():
            monkeypatch.setenv(name, value)
        yield store


def asked(store: Store, name: str) -> int:
    return store.requests.count(("GET", f"{NAME}/{name}"))


def web_server() -> Path:
    """Return the store's address as that of a plain web server, which lists nothing."""
    return Path(f"{os.environ['AWS_ENDPOINT_URL']}/{BUCKET}/{NAME}")


@pytest.mark.slow
def test_rows_and_tables_are_those_of_the_local_cache_and_come_once(cache: Path, store: Store) -> None:
    local, rows = open_cache(cache), np.random.default_rng(0).integers(0, CLIPS_OF_THREE_BLOCKS, 300)
    for round_ in range(2):
        remote = open_cache(ADDRESS)
        assert remote.fingerprint == local.fingerprint and remote.protocol_names() == local.protocol_names()
        assert str(remote.path) == f"s3://{BUCKET}/{NAME}" == str(pickle.loads(pickle.dumps(remote)).path)
        for name in SPEC.names():
            assert np.array_equal(remote.read_rows(name, rows), local.read_rows(name, rows)), name
        assert remote.failures() == local.failures()
        remote.close()
        if not round_:
            before = {name for method, name in store.requests if method == "GET"}
            store.requests.clear()
    again = {name for method, name in store.requests if method == "GET"}
    assert f"{NAME}/{SHARD}" in before
    assert again == {f"{NAME}/{name}" for name in [TABLES_RECORD, *map(commit_name, range(3))]}


def test_pieces_that_lie_side_by_side_come_by_one_request(tmp_path: Path, store: Store) -> None:
    spec = CacheSpec.standard(num_frames=2, num_steps=1, num_instances=2, channels=512, pooled_size=2, grid_size=None)
    large = make_cache(tmp_path / "large.zarr", 256, spec=spec)
    store.objects = {f"{NAME}/{name}": data for name, data in files_below(large).items()}
    shard = "instance_features/c.0.0.0.0.0.0"
    pieces = -(-(large / shard).stat().st_size // PIECE_BYTES)
    reader = open_cache(ADDRESS)
    found = reader.read_rows("instance_features", np.arange(256))
    assert pieces > 4 and asked(store, shard) == 2  # the index, and all the rest
    assert np.array_equal(found, open_cache(large).read_rows("instance_features", np.arange(256)))


def test_rows_that_were_announced_are_fetched_once_and_ahead(store: Store, cache: Path) -> None:
    reader, rows = open_cache(ADDRESS), np.arange(256, 512)
    reader.advise("instance_features", rows)
    reader.read_rows("instance_features", rows)
    assert asked(store, SHARD) <= 2
    reader.close()


def test_no_listing_is_asked_for(store: Store) -> None:
    reader = open_cache(ADDRESS)
    reader.read_rows("grid_features", np.arange(CLIPS_OF_THREE_BLOCKS))
    assert all(name.startswith(f"{NAME}/") for _, name in store.requests)


def test_an_object_replaced_under_the_reader_is_named(store: Store) -> None:
    reader, name = open_cache(ADDRESS), f"{NAME}/{SHARD}"
    large = store.objects[name]

    def replaced(method: str, asked: str) -> None:
        if asked == name and method == "GET":
            store.objects[name] = large[:-1] + bytes([large[-1] ^ 1])

    store.answer = replaced
    with pytest.raises(InputError, match=rf"s3://.*{SHARD} was replaced while it was read"):
        reader.read_rows("instance_features", np.arange(256, 300))


@pytest.mark.slow
def test_damage_on_this_disk_is_mended_and_damage_in_the_bucket_is_named(
    cache: Path, store: Store, tmp_path: Path
) -> None:
    rows = np.arange(CLIPS_OF_THREE_BLOCKS)
    expected = {name: open_cache(cache).read_rows(name, rows) for name in SPEC.names()}
    open_cache(ADDRESS).read_rows("instance_features", rows)
    for path in [*(tmp_path / "blocks").rglob("*.pieces"), *(tmp_path / "blocks").rglob("zarr.json")]:
        data = path.read_bytes()
        path.write_bytes(bytes(len(data) - 1) + data[-1:])
    reader = open_cache(ADDRESS)
    assert all(np.array_equal(reader.read_rows(name, rows), values) for name, values in expected.items())
    data = bytearray(store.objects[f"{NAME}/{SHARD}"])
    data[100] ^= 1
    store.objects[f"{NAME}/{SHARD}"] = bytes(data)
    with pytest.raises(CacheDamageError, match=r"row 257 .*s3://"):
        open_cache(ADDRESS).read_rows("instance_features", rows)
    (damage,) = verify_cache(web_server()).damages
    assert damage.path == SHARD and damage.block == 1


@pytest.mark.slow
def test_what_is_kept_stays_within_the_bound(
    cache: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BOUND, str(200_000 / 2**30))
    rows = np.arange(CLIPS_OF_THREE_BLOCKS)
    reader, local = open_cache(ADDRESS), open_cache(cache)
    for _ in range(2):
        for name in SPEC.names():
            assert np.array_equal(reader.read_rows(name, rows), local.read_rows(name, rows))
    keep_within(tmp_path / "blocks" / "blocks", 200_000)
    kept = sum(path.stat().st_blocks * 512 for path in (tmp_path / "blocks" / "blocks").iterdir())
    assert 0 < kept <= 200_000
    monkeypatch.setenv(BOUND, "much")
    with pytest.raises(InputError, match="GiB above 0"):
        open_cache(ADDRESS)


def test_half_pushed_missing_and_unfinished_caches_are_told_apart(store: Store) -> None:
    del store.objects[f"{NAME}/{commit_name(1)}"]
    reader = open_cache(ADDRESS)
    assert not reader.is_complete()
    with pytest.raises(InputError, match="not extracted yet"):
        reader.read_rows("boxes", np.array([300]))
    del store.objects[f"{NAME}/{SHARD.replace('c.1', 'c.0')}"]
    with pytest.raises(CacheDamageError, match="is missing though its block is committed"):
        open_cache(ADDRESS).read_rows("instance_features", np.array([3]))
    del store.objects[f"{NAME}/{TABLES_RECORD}"]
    with pytest.raises(MissingDataError, match="half pushed"):
        open_cache(ADDRESS)
    store.objects.clear()
    with pytest.raises(MissingDataError, match="there is no cache at s3://"):
        open_cache(ADDRESS)


def test_a_web_server_is_read_too(cache: Path, store: Store) -> None:
    found = open_cache(web_server()).read_rows("instance_features", np.arange(300))
    assert np.array_equal(found, open_cache(cache).read_rows("instance_features", np.arange(300)))


@pytest.mark.slow(seconds=5)
def test_training_from_a_bucket_gives_the_numbers_of_training_from_disk(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, local = write_dataset(tmp_path / "d", num_clips=12, pixels=False), tmp_path / "e.zarr"
    made = ["extract", "--dataset", "something-else", "--data-root", data, "--out", local, "--backbone", "none"]
    assert call(made, tmp_path)[0] == 0
    store.objects = {f"e.zarr/{name}": content for name, content in files_below(local).items()}
    address, logits = f"s3://{BUCKET}/e.zarr", []
    for place, run in ((str(local), "near"), (address, "far")):
        fit = [
            "fit-head",
            "base",
            "--streams",
            "layout",
            "--preset",
            "small",
            "--schedule",
            "stretched",
            "--epochs",
            "2",
        ]
        code, _, stderr = call([*fit, "--cache", place, "--out", run], tmp_path)
        assert code == 0, stderr
        logits.append(dict(np.load(tmp_path / run / "predictions.npz")))
    assert all(np.array_equal(values, logits[1][name]) for name, values in logits[0].items())
    assert f"cache: {address}\n" in (tmp_path / "far" / "config.yaml").read_text()
    for arguments in (["evaluate", "far"], ["cache", "info", address], ["evaluate", "near", "--cache", address]):
        code, _, stderr = call(arguments, tmp_path)
        assert code == 0, stderr
    assert not any(SECRET.encode() in content for content in files_below(tmp_path).values())


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_a_push_over_googles_and_azures_protocol_reads_as_the_local_cache(
    scheme: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, address = Store(), place_of(f"{scheme}://{BUCKET}/{NAME}")
    assert isinstance(address, Address)
    monkeypatch.setenv(FOLDER, str(tmp_path / "blocks"))
    with store.serve() as port:
        for name, value in other_settings(scheme, port).items():
            monkeypatch.setenv(name, value)
        push_cache(cache, address)
        assert store.objects == {f"{NAME}/{name}": data for name, data in files_below(cache).items()}
        reader, rows = open_cache(address), np.arange(CLIPS_OF_THREE_BLOCKS)[::-7]
        np.testing.assert_array_equal(
            reader.read_rows("instance_features", rows), open_cache(cache).read_rows("instance_features", rows)
        )
        reader.close()
        bucket = Bucket(address)
        before = bucket.get_tagged(TABLES_RECORD)
        assert before is not None
        bucket.put_record(TABLES_RECORD, b"other", before[1])
        with pytest.raises(ConflictError, match="another process wrote there"):
            bucket.put_record(TABLES_RECORD, before[0], before[1])
        with pytest.raises(ConflictError, match="another process wrote there"):
            bucket.put_record(TABLES_RECORD, before[0], None)
        assert store.objects[f"{NAME}/{TABLES_RECORD}"] == b"other"


def test_addresses_without_credentials_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    with pytest.raises(InputError, match=r"az://lab/c\.zarr: no credentials; set AWS_ACCESS_KEY_ID .*AZURE_"):
        open_cache(Path("az://lab/c.zarr"))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(InputError, match=r"gs://lab/c\.zarr: .*service account file") as said:
        open_cache(Path("gs://lab/c.zarr"))
    assert "\n" not in str(said.value)
