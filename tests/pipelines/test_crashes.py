"""Real processes, real kills: what is committed stays, what is not is made again, and the end is the same bytes.

`IFCAR_KILLS=100 pytest tests/pipelines/test_crashes.py` is the long form, with pixels as well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fixtures.dies_at import dies_at
from fixtures.processes import Command, call, children, extract, files_below, run, workers
from fixtures.something_else import write_dataset

from ifcar.cache.layout import read_manifest
from ifcar.cache.lock import lock_path
from ifcar.cache.open import open_cache
from ifcar.cache.verify import verify_cache
from ifcar.pipelines.extraction.hours import hours_file

pytestmark = pytest.mark.slow(seconds=8)
KILLS = int(os.environ.get("IFCAR_KILLS", "10"))
STEPS = ("block 1: boxes staged", "block 1: status in place", "block 1: flushed", "committed")


def num_committed(cache: Path) -> int:
    return len(list((cache / "commits").glob("[0-9]*.json")))


def wait_until_committed(cache: Path, count: int, process: Command) -> None:
    while process.poll() is None and num_committed(cache) < count:
        time.sleep(0.005)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "d", num_clips=30, pixels=KILLS > 10)


@pytest.fixture(scope="module")
def whole(data: Path) -> dict[str, bytes]:
    out = data.parent / "whole.zarr"
    assert call(extract(data, out), data.parent)[0] == 0
    return files_below(out)


def assert_nothing_but_the_cache(path: Path, whole: dict[str, bytes]) -> None:
    assert files_below(path) == whole
    assert verify_cache(path).ok
    assert {entry.name for entry in path.parent.iterdir()} - {hours_file(path).name} == {path.name}


def test_extraction_killed_at_every_step_and_at_random_ends_with_the_same_bytes(
    data: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    path, rng, kills = tmp_path / "c.zarr", np.random.default_rng(), 0
    for step in STEPS:
        code, error = run(extract(data, path), tmp_path, partial(dies_at, step))
        assert code == -signal.SIGKILL, error
        kills += 1
    for number in range(KILLS - len(STEPS)):
        if verify_cache(path).pending_blocks == ():
            path = tmp_path / f"c{number}.zarr"
        process = Command(extract(data, path), tmp_path)
        wait_until_committed(path, num_committed(path) + 1, process)
        time.sleep(float(rng.uniform(0, 0.1)))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        committed = open_cache(path).committed_rows()
        assert all(status == 1 for status in open_cache(path).status()[committed])
    assert kills > KILLS // 2
    for path in sorted(tmp_path.glob("*.zarr")):
        assert call(extract(data, path), tmp_path)[0] == 0
        assert files_below(path) == whole and verify_cache(path).ok
    assert {entry.suffix for entry in tmp_path.iterdir()} - {".jsonl"} == {".zarr"}


@pytest.mark.skipif(KILLS <= 10, reason="the long form: IFCAR_KILLS=100")
def test_extraction_of_pixels_killed_at_random_ends_with_the_same_bytes(data: Path, tmp_path: Path) -> None:
    assert call(extract(data, tmp_path / "whole.zarr", pixels=True), tmp_path)[0] == 0
    path, rng = tmp_path / "c.zarr", np.random.default_rng()
    for _ in range(KILLS // 5):
        process = Command(extract(data, path, pixels=True), tmp_path)
        time.sleep(float(rng.uniform(2, 12)))
        process.kill()
        process.communicate()
    assert call(extract(data, path, pixels=True), tmp_path)[0] == 0
    assert files_below(path) == files_below(tmp_path / "whole.zarr")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_extraction_says_what_is_kept_and_goes_on(
    data: Path, tmp_path: Path, whole: dict[str, bytes], number: signal.Signals, code: int
) -> None:
    path = tmp_path / "c.zarr"
    process = Command(extract(data, path), tmp_path)
    wait_until_committed(path, 2, process)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == code, error
    assert "of 12 blocks are kept; the same command goes on" in error and "Traceback" not in error
    assert verify_cache(path).ok and not lock_path(path).exists()
    assert call(extract(data, path), tmp_path)[0] == 0
    assert_nothing_but_the_cache(path, whole)


def test_killed_decoder_is_named_and_no_hang(data: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    path = tmp_path / "c.zarr"
    process = Command(extract(data, path), tmp_path)
    wait_until_committed(path, 1, process)
    (decoder,) = children(process.pid)
    os.kill(decoder, signal.SIGKILL)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 2, error
    assert f"decoding process {decoder} was killed" in error and "Traceback" not in error
    assert call(extract(data, path), tmp_path)[0] == 0
    assert_nothing_but_the_cache(path, whole)


def test_second_extraction_of_a_cache_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.zarr"
    process = Command(extract(data, path), tmp_path)
    wait_until_committed(path, 1, process)
    process.send_signal(signal.SIGSTOP)
    for command in (extract(data, path), ["cache", "repair", path]):
        code, _, error = call(command, tmp_path)
        assert code == 2
        assert f"process {process.pid} on {os.uname().nodename} since 20" in error and error.count("\n") == 1
    process.kill()
    process.communicate()


def test_copy_made_while_the_cache_is_written_is_right_or_refused(
    data: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """`cp -r` of a growing cache: what is committed in the copy is right, or verify names what is not."""
    path = tmp_path / "c.zarr"
    process = Command(extract(data, path), tmp_path)
    for number in range(4):
        wait_until_committed(path, 2 * number + 1, process)
        subprocess.run(["cp", "-r", path, tmp_path / f"copy{number}"], check=False, stderr=subprocess.DEVNULL)
    assert process.communicate() and process.returncode == 0
    for number in range(4):
        copy = tmp_path / f"copy{number}"
        named = {damage.path for damage in verify_cache(copy).damages}
        files = files_below(copy)
        manifest = read_manifest(copy)
        for block in (b for b in range(12) if f"commits/{b:06d}.json" in files):
            for name in manifest.block_files(block).values():
                assert files.get(name) == whole[name] or name in named


def test_training_killed_at_random_ends_with_the_same_weights_and_metrics(
    data: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    options = ("base", "--streams", "layout", "--preset", "small", "--schedule", "stretched", "--min-steps", "200")
    fit = ["fit-head", *options, "--cache", data.parent / "whole.zarr", "--out"]
    assert call([*fit, "whole"], tmp_path)[0] == 0
    rng, kills, command = np.random.default_rng(), 0, [*fit, "killed"]
    while kills < KILLS // 3:
        process = Command(command, tmp_path)
        checkpoint = tmp_path / "killed" / "checkpoint.safetensors"
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before):
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.3)))
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break
        kills += 1
        command = ["fit-head", "--resume", "--out", "killed"]
    else:
        assert call(command, tmp_path)[0] == 0
    assert kills
    left, right = files_below(tmp_path / "killed"), files_below(tmp_path / "whole")
    assert {name for name in left if "events" not in name} == {name for name in right if "events" not in name}
    assert all(left[name] == right[name] for name in ("model.safetensors", "predictions.npz", "config.yaml"))
    scores = [[{**m, "seconds": 0} for m in json.loads(files["metrics.json"])] for files in (left, right)]
    assert scores[0] == scores[1]


def grid_file(folder: Path, min_steps: int) -> Path:
    schedule = f"{{kind: stretched, min_steps: {min_steps}, batch_size: 8, refit: false}}"
    systems = "\n".join(f"  - {{name: {head}, head: {head}, streams: layout}}" for head in ("base", "stin"))
    text = f"name: tiny\ntitle: Tiny\nseeds: [0, 1]\npreset: small\nschedule: {schedule}\nsystems:\n{systems}\n"
    path = folder / "tiny.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_grid_takes_its_processes_along_and_a_second_one_is_refused_before(
    data: Path, tmp_path: Path, whole: dict[str, bytes], number: signal.Signals
) -> None:
    command = ["grid", grid_file(tmp_path, 100_000), "--cache", data.parent / "whole.zarr"]
    (tmp_path / "ifcar").mkdir()  # where the grid stands, but not where its workers find the package
    (tmp_path / "ifcar" / "__init__.py").write_text("raise SystemExit")
    process = Command(command, tmp_path)
    while process.poll() is None and len(list((tmp_path / "runs").glob("*/config.yaml"))) < 4:
        time.sleep(0.05)
    code, _, error = call(command, tmp_path)
    assert code == 2 and f"process {process.pid} on" in error
    below = [*children(process.pid), *workers(process.pid)]
    process.send_signal(number)
    error = process.communicate(timeout=30)[1]
    if number is signal.SIGTERM:
        assert process.returncode == 143, error
        assert "0 of 4 runs are finished; the same command goes on" in error and "Traceback" not in error
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{each}").exists() for each in below) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(below) >= 3 and not any(Path(f"/proc/{each}").exists() for each in below)
