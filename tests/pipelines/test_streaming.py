"""Rows kept on disk: the order of an epoch, reading ahead, and runs that stream."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.interrupts import interrupted_after
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.open import open_cache
from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Provenance, Split, Status
from ifcar.cache.writer import CacheWriter
from ifcar.errors import CacheDamageError, InputError
from ifcar.pipelines.feed.batches import BatchReader
from ifcar.pipelines.feed.memory import choose_place, free_bytes
from ifcar.pipelines.feed.order import WINDOW_SHARDS, draw_order
from ifcar.pipelines.feed.read_ahead import AHEAD_BYTES, ReadAhead
from ifcar.pipelines.fit import fit
from ifcar.pipelines.fleets.pool import fit_all
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.training.checkpoint import NAME as CHECKPOINT
from ifcar.pipelines.training.jobs import Job
from ifcar.pipelines.training.machine import MachineConfig

NUM_CLIPS = 256 * 10 + 40  # eleven shards, so that an epoch has two windows
SPEC = CacheSpec.standard(num_frames=2, num_steps=1, num_instances=1, channels=4, pooled_size=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, rng = tmp_path_factory.mktemp("streaming") / "c.zarr", np.random.default_rng(0)
    targets = rng.integers(0, 3, NUM_CLIPS).astype(np.int16)
    table = ProtocolTable(
        name="compositional",
        spaces=(LabelSpace(kind="single", classes=("a", "b", "c"), targets=targets),),
        split=np.where(np.arange(NUM_CLIPS) % 10 == 9, Split.TEST, Split.TRAIN).astype(np.uint8),
        groups=np.full(NUM_CLIPS, -1, np.int32),
    )
    writer = CacheWriter.create(
        path,
        spec=SPEC,
        provenance=Provenance(identity={"dataset": {"name": "made"}, "backbone": {"name": "i3d_r50"}}),
        clip_ids=[str(k) for k in range(NUM_CLIPS)],
        num_views=1,
        protocols=[table],
    )
    for block in writer.pending_blocks():
        rows = writer.rows_of(block)
        arrays = SPEC.empty_rows(len(rows))
        arrays["frame_features"][:] = rng.standard_normal(arrays["frame_features"].shape)
        arrays["frame_features"][np.arange(len(rows)), 0, targets[rows.start : rows.stop]] += 3
        arrays["frame_features"][:, 0, 3] = np.arange(rows.start, rows.stop)  # exact up to 2,048
        arrays["status"][:] = Status.DONE
        writer.write_block(block, arrays, {})
    return path


def streamed(cache: Path) -> BatchReader:
    reader = open_cache(cache)
    return BatchReader(reader, ("frame_features",), np.arange(NUM_CLIPS), torch.device("cpu"), "stream")


def config(cache: Path) -> RunConfig:
    schedule = ScheduleConfig(kind="paper", epochs=3, batch_size=72)
    return make_run_config("i3d", cache, schedule=schedule)


@pytest.mark.parametrize("seed", [0, 1])
def test_shard_order_sees_every_clip_once_window_after_window(seed: int) -> None:
    shards = np.repeat(np.arange(20), 30)[np.random.default_rng(5).permutation(600)]
    order = draw_order("shards", shards, 3, np.random.default_rng([seed, 3]))
    np.testing.assert_array_equal(np.sort(order), np.arange(600))
    windows = np.split(shards[order], [WINDOW_SHARDS * 30, 2 * WINDOW_SHARDS * 30])
    assert [len(np.unique(window)) for window in windows] == [8, 8, 4]
    assert len(np.unique(windows[0][:72])) == 8
    again = draw_order("shards", shards, 3, np.random.default_rng([seed, 3]))
    np.testing.assert_array_equal(order, again)
    later = draw_order("shards", shards, 4, np.random.default_rng([seed, 4]))
    assert set(shards[later][: len(windows[0])]) != set(windows[0])


def test_seeds_that_train_together_read_the_same_shards_in_another_order() -> None:
    shards = np.arange(600) // 30
    first, second = (draw_order("shards", shards, 0, np.random.default_rng([seed, 0])) for seed in (0, 1))
    assert (first != second).mean() > 0.9
    assert set(shards[first][:240]) == set(shards[second][:240])


def test_few_shards_have_the_order_of_preloaded_rows() -> None:
    shards = np.arange(WINDOW_SHARDS * 30) // 30
    orders = [draw_order(kind, shards, 2, np.random.default_rng(1)) for kind in ("full", "shards")]
    np.testing.assert_array_equal(*orders)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_batches_hold_the_rows_asked_for_however_they_were_announced(cache: Path, data: st.DataObject) -> None:
    rows = st.lists(st.integers(0, 2047), min_size=1, max_size=40)
    announced = data.draw(st.lists(rows, max_size=12))
    batches = streamed(cache)
    batches.expect([np.array(batch) for batch in announced])
    asked = [batch for batch in announced if data.draw(st.booleans())]
    for place in range(data.draw(st.integers(0, 3))):
        asked.insert(min(place, len(asked)), data.draw(rows))
    for batch in asked:
        taken = batch[: data.draw(st.integers(1, len(batch)))]
        found = batches.batch(np.array(taken)).array("frame_features")
        assert found is not None and found[:, 0, 3].tolist() == taken


def test_at_most_ahead_bytes_are_read_before_they_are_taken() -> None:
    started: list[int] = []
    lock = threading.Lock()

    def read(rows: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        with lock:
            started.extend(rows.tolist())
        return {"rows": torch.from_numpy(rows)}

    ahead = ReadAhead(read, lambda rows: None, AHEAD_BYTES // 3)
    ahead.expect([np.array([k]) for k in range(50)])
    for k in range(50):
        assert ahead.take(np.array([k]))["rows"].tolist() == [k]
        assert max(started) <= k + 3
    assert started == sorted(started) == list(range(50))


def test_damage_met_while_reading_ahead_reaches_the_one_who_asks(cache: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(cache, tmp_path / "c.zarr")
    shard = copy / "frame_features/c.4.0.0"
    content = bytearray(shard.read_bytes())
    content[3] ^= 1
    shard.write_bytes(content)
    batches = streamed(copy)
    batches.expect([np.arange(start, start + 128) for start in (0, 1024, 1152)])
    batches.batch(np.arange(128))
    with pytest.raises(CacheDamageError, match="frame_features, row 1024"):
        batches.batch(np.arange(1024, 1152))
    assert len(batches.batch(np.arange(1152, 1280)).array("frame_features")) == 128


@pytest.mark.slow
def test_grid_keeps_rows_where_it_is_told(cache: Path, tmp_path: Path) -> None:
    job = Job(config=config(cache), path=tmp_path / "run")
    assert not fit_all([job], Silent(), MachineConfig(processes=1, device="cpu", memory="stream"))
    assert (tmp_path / "run" / "history.jsonl").read_text().count('"order": "shards"') == 3


@pytest.mark.slow
def test_streamed_run_repeats_and_resumes_in_its_order_wherever_the_rows_are(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    weights = {}
    for name, memory in (("a", "stream"), ("b", "stream"), ("full", "ram")):
        fit(config(cache), Silent(), out=tmp_path / name, memory=memory)  # type: ignore[arg-type]
        weights[name] = load_file(tmp_path / name / "model.safetensors")
    with interrupted_after(CHECKPOINT, 1), pytest.raises(KeyboardInterrupt):
        fit(config(cache), Silent(), out=tmp_path / "c", memory="stream")
    fit(config(cache), Silent(), out=tmp_path / "c", memory="ram", resume=True)
    weights["c"] = load_file(tmp_path / "c" / "model.safetensors")
    for key, value in weights["a"].items():
        np.testing.assert_array_equal(value, weights["b"][key])
        np.testing.assert_array_equal(value, weights["c"][key])
    assert any((value != weights["full"][key]).any() for key, value in weights["a"].items())
    histories = [(tmp_path / name / "history.jsonl").read_text() for name in ("c", "full")]
    assert [text.count('"order": "shards"') for text in histories] == [3, 0]


def test_rows_are_preloaded_while_they_fit_in_half_of_what_is_free() -> None:
    cpu, free = torch.device("cpu"), free_bytes()
    assert choose_place("auto", free // 4, cpu) == "ram"
    assert choose_place("auto", 2 * free, cpu) == "stream"
    assert choose_place("stream", 1, cpu) == "stream" and choose_place("ram", 2 * free, cpu) == "ram"
    with pytest.raises(InputError, match="--memory gpu: batches go to cpu"):
        choose_place("gpu", 1, cpu)


def test_free_memory_counts_the_page_cache_and_the_control_group(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    inner = groups / "job" / "step"
    (proc / "self").mkdir(parents=True)
    inner.mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemFree: 100 kB\nMemAvailable: 5000 kB\n")
    (proc / "self/cgroup").write_text("0::/job/step\n")
    assert free_bytes(proc, groups) == 5000 * 1024
    for folder, limit in ((inner, "max"), (groups / "job", "3000000")):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("2500000\n")
        (folder / "memory.stat").write_text("anon 500000\ninactive_file 1800000\n")
    assert free_bytes(proc, groups) == 3000000 - 2500000 + 1800000
