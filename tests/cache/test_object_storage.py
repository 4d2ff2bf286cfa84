"""Caches in object storage: pushed, pulled, killed on the way, and what goes wrong there."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cache_cases import (
    CLIPS_OF_THREE_BLOCKS,
    block_arrays,
    create_writer,
    fill,
    make_cache,
    protocols,
    resume_writer,
)
from fixtures.buckets import BUCKET, SECRET, Store, rclone, settings
from fixtures.dies_at import dies_at
from fixtures.interrupts import interrupted_after
from fixtures.processes import Command, call, files_below
from fixtures.something_else import write_dataset

from ifcar.cache.addresses import Address, place_of
from ifcar.cache.block_cache import FOLDER
from ifcar.cache.bucket import Bucket
from ifcar.cache.commits import TABLES_RECORD, commit_name
from ifcar.cache.lock import locked
from ifcar.cache.outbox import Outbox
from ifcar.cache.pull import pull_cache
from ifcar.cache.push import push_cache
from ifcar.cache.schema import Status
from ifcar.cache.verify import verify_cache
from ifcar.errors import CacheDamageError, CacheMismatchError, IfcarError, InputError, MissingDataError
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.progress import Silent

pytest.importorskip("obstore", reason="the extra `cloud` is not installed")
SHARD = "instance_features/c.1.0.0.0.0.0"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    root = tmp_path_factory.mktemp("buckets")
    with rclone(root) as port:
        yield root, port


@pytest.fixture
def bucket(server: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an address of this test's own, whose name is the folder's."""
    for name, value in settings(server[1]).items():
        monkeypatch.setenv(name, value)
    return server[0] / BUCKET / f"{tmp_path.name}.zarr"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    store = Store()
    with store.serve() as port:
        for name, value in settings(port).items():
            monkeypatch.setenv(name, value)
        yield store


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("local") / "c.zarr", CLIPS_OF_THREE_BLOCKS)


def address(bucket: Path) -> Address:
    found = place_of(f"s3://{BUCKET}/{bucket.name}")
    assert isinstance(found, Address)
    return found


def test_a_pushed_and_pulled_cache_has_the_same_bytes_and_nothing_is_sent_twice(
    cache: Path, bucket: Path, tmp_path: Path
) -> None:
    sent = push_cache(cache, address(bucket))
    assert files_below(bucket) == files_below(cache)
    assert sent.files == len(files_below(cache)) - 3 - 2  # without records and zarr.json, which claim the place
    assert push_cache(cache, address(bucket)).files == 0
    pull_cache(address(bucket), tmp_path / "back.zarr")
    assert files_below(tmp_path / "back.zarr") == files_below(cache)
    assert pull_cache(address(bucket), tmp_path / "back.zarr").files == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["back.zarr"]


@pytest.mark.slow(seconds=15)
def test_a_push_and_a_pull_killed_anywhere_go_on_to_the_same_bytes(cache: Path, bucket: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "back.zarr", f"s3://{BUCKET}/{bucket.name}"
    own = {n: b for n, b in files_below(cache).items() if not n.startswith(("clips/", "protocols/"))}
    steps = [f"push: {SHARD} sent", "push: block 1 committed", f"push: {TABLES_RECORD.split('/')[0]}/zarr.json sent"]
    for step in [*steps, "push: all records sent"]:
        killed = Command(["cache", "push", cache, there], tmp_path, partial(dies_at, step))
        killed.communicate()
        assert killed.returncode == -9, step
        for block in range(3):  # a record is there only with all of its files
            if (bucket / commit_name(block)).exists():
                assert all(files_below(bucket).get(n) == b for n, b in own.items() if f"/c.{block}" in n)
    assert call(["cache", "push", cache, there], tmp_path)[0] == 0
    assert files_below(bucket) == files_below(cache)
    for step in ["block 1: boxes in place", "block 1: flushed"]:
        killed = Command(["cache", "pull", there, here], tmp_path, partial(dies_at, step))
        killed.communicate()
        assert killed.returncode == -9, step
        assert not [damage for damage in verify_cache(here).damages if damage.kind != "stray file"]
    assert call(["cache", "pull", there, here], tmp_path)[0] == 0
    assert files_below(here) == files_below(cache)


def test_verification_reads_every_object_and_names_what_is_damaged_gone_or_foreign(cache: Path, bucket: Path) -> None:
    push_cache(cache, address(bucket))
    report = verify_cache(address(bucket))
    assert report.ok and report.num_rows_checked == CLIPS_OF_THREE_BLOCKS and report.num_failed == 1
    Bucket(address(bucket)).put(SHARD, _flipped(bucket / SHARD))
    Bucket(address(bucket)).put("notes.txt", b"of somebody")
    Bucket(address(bucket)).delete("boxes/c.0.0.0.0")
    Bucket(address(bucket)).delete(commit_name(2))
    report = verify_cache(address(bucket))
    found = {(damage.path, str(damage.kind), damage.block) for damage in report.damages}
    assert found == {
        (SHARD, "foreign shard", 1),
        ("notes.txt", "stray file", None),
        ("boxes/c.0.0.0.0", "missing file", 0),
    }
    assert report.pending_blocks == (2,)


def test_a_half_pushed_cache_is_refused_and_the_push_goes_on(cache: Path, bucket: Path, tmp_path: Path) -> None:
    push_cache(cache, address(bucket))
    for name in (TABLES_RECORD, SHARD):
        Bucket(address(bucket)).delete(name)
    with pytest.raises(MissingDataError, match="half pushed"):
        pull_cache(address(bucket), tmp_path / "back.zarr")
    assert not (tmp_path / "back.zarr").exists()
    assert push_cache(cache, address(bucket)).files == 1
    assert files_below(bucket) == files_below(cache)


def test_blocks_made_in_two_places_become_one_cache_in_the_bucket(cache: Path, bucket: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.zarr"
    fill(create_writer(other, CLIPS_OF_THREE_BLOCKS))
    for place, block in ((cache, 1), (other, 2)):
        copy = tmp_path / f"without-{block}.zarr"
        _copy_without(place, copy, block)
        moved = push_cache(copy, address(bucket))
    assert moved.kept == 1
    assert files_below(bucket) == files_below(cache)


def test_changed_protocols_replace_those_there_and_leave_no_old_object(
    cache: Path, bucket: Path, tmp_path: Path
) -> None:
    push_cache(cache, address(bucket))
    pull_cache(address(bucket), tmp_path / "back.zarr")
    fewer = tmp_path / "fewer.zarr"
    make_cache(fewer, CLIPS_OF_THREE_BLOCKS, protocols=protocols(CLIPS_OF_THREE_BLOCKS)[:1])
    push_cache(fewer, address(bucket))
    assert files_below(bucket) == files_below(fewer)
    pull_cache(address(bucket), tmp_path / "back.zarr")
    assert files_below(tmp_path / "back.zarr") == files_below(fewer)


def test_a_damaged_file_is_not_sent_and_a_damaged_object_is_not_kept(cache: Path, bucket: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.zarr"
    _copy_without(cache, copy, None)
    (copy / SHARD).write_bytes(_flipped(copy / SHARD))
    with pytest.raises(CacheDamageError, match=r"c\.1.*is not what was committed"):
        push_cache(copy, address(bucket))
    assert not (bucket / commit_name(1)).exists() and not (bucket / TABLES_RECORD).exists()
    push_cache(cache, address(bucket))
    Bucket(address(bucket)).put(SHARD, _flipped(bucket / SHARD))
    with pytest.raises(CacheDamageError, match=r"s3://.*c\.1.*is not what was committed"):
        pull_cache(address(bucket), tmp_path / "back.zarr")
    (damage,) = verify_cache(address(bucket)).damages
    assert re.search(r"c\.1.* \(SHA-256 \w+…, expected \w+…\); delete it and push again", str(damage))
    assert not (tmp_path / "back.zarr" / commit_name(1)).exists()
    assert verify_cache(tmp_path / "back.zarr").ok


def test_another_cache_is_overwritten_at_neither_end(cache: Path, bucket: Path, tmp_path: Path) -> None:
    other = make_cache(tmp_path / "other.zarr", 3)
    before = files_below(other)
    push_cache(cache, address(bucket))
    with pytest.raises(CacheMismatchError, match="another cache lies there"):
        push_cache(other, address(bucket))
    with pytest.raises(CacheMismatchError, match="another cache lies there"):
        pull_cache(address(bucket), other)
    assert files_below(bucket) == files_below(cache) and files_below(other) == before


def test_a_record_that_another_process_wrote_meanwhile_is_not_replaced(cache: Path, store: Store) -> None:
    name = f"c.zarr/{commit_name(1)}"

    def other_is_first(method: str, asked: str) -> None:
        if method == "PUT" and asked == name:
            store.objects.setdefault(name, b"of the other process")

    store.answer = other_is_first
    with pytest.raises(InputError, match="another process wrote there"):
        push_cache(cache, address(Path("c.zarr")))
    assert store.objects[name] == b"of the other process"
    assert f"c.zarr/{TABLES_RECORD}" not in store.objects


def test_a_store_that_keeps_other_bytes_than_were_sent_is_found_out(cache: Path, store: Store) -> None:
    def keeps_nothing(method: str, asked: str) -> tuple[int, bytes, dict[str, str]] | None:
        if method == "PUT" and asked.endswith(SHARD):
            store.objects[asked] = b"cut off"
            return 200, b"", {"ETag": '"0"'}
        return None

    store.answer = keeps_nothing
    with pytest.raises(IfcarError, match="other bytes than were sent"):
        push_cache(cache, address(Path("c.zarr")))
    assert f"c.zarr/{commit_name(1)}" not in store.objects


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>said</Message></Error>".encode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "RequestTimeTooSkewed", "clock is wrong"),
        (403, "AccessDenied", "refuses this"),
        (403, "SignatureDoesNotMatch", "does not know these credentials"),
        (404, "NoSuchBucket", "no such bucket"),
    ],
)
def test_what_a_store_refuses_is_one_line_without_secrets(
    cache: Path, store: Store, tmp_path: Path, status: int, code: str, said: str
) -> None:
    store.answer = lambda method, name: (status, error(code), {})
    for arguments in (["push", cache, "s3://lab/c.zarr"], ["pull", "s3://lab/c.zarr", tmp_path / "b.zarr"]):
        exit_code, _, stderr = call(["cache", *arguments], tmp_path)
        assert exit_code == 2 and said in stderr and "s3://lab/c.zarr" in stderr, stderr
        assert len(stderr.splitlines()) == 1 and SECRET not in stderr and "127.0.0.1" not in stderr, stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://key:hidden@lab/c.zarr", "environment"),
        ("https://host/c.zarr?X-Amz-Signature=hidden", "environment"),
        ("s3://lab", "names no cache"),
        ("ftp://host/c.zarr", "not known"),
        ("c.zarr", "local path"),
        ("https://host/c.zarr", "takes no objects"),
    ],
)
def test_an_address_that_is_none_is_one_line_that_repeats_no_secret(
    cache: Path, tmp_path: Path, text: str, said: str
) -> None:
    code, _, stderr = call(["cache", "push", cache, text], tmp_path)
    assert code == 2 and said in stderr and "hidden" not in stderr and len(stderr.splitlines()) == 1, stderr


def test_keys_of_a_profile_are_read_from_the_shared_file(
    cache: Path, bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "credentials"
    key = settings(0)["AWS_ACCESS_KEY_ID"]
    shared.write_text(f"[lab]\naws_access_key_id = {key}\naws_secret_access_key = {SECRET}\n")
    for name, value in (("AWS_SHARED_CREDENTIALS_FILE", str(shared)), ("AWS_PROFILE", "lab")):
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert push_cache(cache, address(bucket)).blocks == 3
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(InputError, match="no such profile"):
        push_cache(cache, address(bucket))


def test_an_address_survives_paths_and_texts() -> None:
    first = place_of("s3://lab/a/c.zarr")
    assert str(first) == "s3://lab/a/c.zarr" == str(place_of(Path("s3://lab/a/c.zarr")))
    assert place_of(first) is first and first.name == "c.zarr" and first.absolute() == first
    assert str(first / "zarr.json") == "s3://lab/a/c.zarr/zarr.json"


def _copy_without(source: Path, target: Path, block: int | None) -> None:
    for name, data in files_below(source).items():
        if block is None or (f"/c.{block}" not in name and name != commit_name(block)):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(data)


def _flipped(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[random.Random(3).randrange(len(data))] ^= 1
    return bytes(data)


EXTRACT = ("extract", "--dataset", "something-else", "--backbone", "none", "--views", "100", "--workers", "1")


@pytest.mark.slow(seconds=20)
def test_an_extraction_into_a_bucket_killed_anywhere_ends_with_the_bytes_of_one_on_disk(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, local = write_dataset(tmp_path / "d", num_clips=8, pixels=False), tmp_path / "local.zarr"
    words = [*EXTRACT, "--data-root", data, "--out"]
    assert call([*words, local], tmp_path)[0] == 0
    there, outbox = f"s3://{BUCKET}/{bucket.name}", tmp_path / "outbox"
    monkeypatch.setenv(FOLDER, str(outbox))
    for step in ["block 1: boxes in place", "push: boxes/c.1.0.0.0 sent", "block 2: committed", "block 2: sent"]:
        killed = Command([*words, there], tmp_path, partial(dies_at, step))
        said = killed.communicate()
        assert killed.returncode == -9, (step, said)
        assert not verify_cache(address(bucket)).damages or step == "push: boxes/c.1.0.0.0 sent"
        for name, content in files_below(bucket).items():  # what is there is right, finished or not
            assert files_below(local)[name] == content or name in ("zarr.json", TABLES_RECORD)
        if step == "block 2: committed":
            shutil.rmtree(outbox)  # another machine goes on
    code, out, stderr = call([*words, there], tmp_path)
    assert code == 0 and there in out, stderr
    assert files_below(bucket) == files_below(local)
    assert not list(outbox.rglob("masks/c.*"))
    code, out, _ = call([*words, there, "--json"], tmp_path)
    assert code == 0 and json.loads(out)["num_computed"] == 0


@pytest.mark.slow
def test_what_stops_an_extraction_into_a_bucket_names_the_address_and_no_folder_of_ours(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, lines = write_dataset(tmp_path / "d", num_clips=8, pixels=False), list[str]()
    monkeypatch.setenv(FOLDER, str(tmp_path / "outbox"))

    class Lines(Silent):
        def say(self, line: str) -> None:
            lines.append(line)

    config = ExtractConfig(
        dataset="something-else", backbone="none", views=100, workers=0, data_root=data, out=address(bucket)
    )
    with interrupted_after(Path(commit_name(1)).name, 0), pytest.raises(KeyboardInterrupt):
        extract(config, Lines())
    assert lines[-1] == f"{address(bucket)}: 1 of 4 blocks is kept; the same command goes on"
    outbox = Outbox(address(bucket))
    outbox.close()
    with locked(outbox.folder):
        second = Command([*EXTRACT, "--data-root", data, "--out", address(bucket)], tmp_path)
        said = second.communicate()[1]
    assert second.returncode == 2 and f"{address(bucket)}: process" in said and str(outbox.folder) not in said


@pytest.mark.slow
def test_shards_leave_the_disk_once_they_are_sent_and_come_back_for_rows_that_are_computed_again(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "outbox"))
    outbox = Outbox(address(bucket))
    outbox.receive()
    outbox.folder.parent.mkdir(parents=True)
    writer = create_writer(outbox.folder, CLIPS_OF_THREE_BLOCKS)
    outbox.attach(writer)
    for block in writer.pending_blocks():
        writer.write_block(block, *block_arrays(writer.rows_of(block)))
        assert not list(outbox.folder.glob("*_features/c.*"))
    writer.reopen_block(0)
    outbox.restore(writer.stage.manifest, [0])
    arrays = writer.stage.read_block(0)
    assert np.array_equal(arrays["grid_features"], block_arrays(range(256))[0]["grid_features"])
    arrays["status"][5] = Status.DONE
    writer.write_block(0, arrays, {})
    outbox.close()
    assert verify_cache(address(bucket)).ok and verify_cache(address(bucket)).num_failed == 0


def test_two_extractions_into_one_address_do_not_overwrite_each_other(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = []
    for name in ("one", "two"):
        monkeypatch.setenv(FOLDER, str(tmp_path / name))
        outbox = Outbox(address(bucket))
        outbox.receive()
        outbox.folder.parent.mkdir(parents=True, exist_ok=True)
        here = outbox.folder.exists()
        writers.append((resume_writer if here else create_writer)(outbox.folder, CLIPS_OF_THREE_BLOCKS))
        outbox.attach(writers[-1])
    writers[0].write_block(1, *block_arrays(range(256, 512)))
    before = files_below(bucket)
    with pytest.raises(InputError, match="another process extracts there"):
        writers[1].write_block(1, *block_arrays(range(256, 512), seed=1))
    assert files_below(bucket) == before
