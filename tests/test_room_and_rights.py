"""Full disks, folders that may not be written, names too long, too few file handles: one line, nothing lost."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fixtures.capabilities import obey_modes
from fixtures.processes import call, extract, files_below, run
from fixtures.something_else import write_dataset

from ifcar.cache.verify import verify_cache

FIT = ("fit-head", "base", "--streams", "layout", "--preset", "small", "--schedule", "stretched", "--epochs", "8")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "d", num_clips=30, pixels=False)


@pytest.fixture(scope="module")
def whole(data: Path) -> Path:
    out = data.parent / "whole.zarr"
    assert call(extract(data, out, workers=0), data.parent)[0] == 0
    return out


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 1 MiB large."""
    path = tmp_path / "disk"
    path.mkdir()
    if shutil.which("mount") is None or subprocess.run(mount(path, "size=1M"), capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def mount(path: Path, options: str) -> list[str | Path]:
    return ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path]


def remount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)


def assert_last_line(error: str, *parts: str) -> None:
    assert "Traceback" not in error, error
    last = error.splitlines()[-1]
    assert last.startswith("ifcar: ") and all(part in last for part in parts), error


@pytest.mark.slow
def test_full_disk_stops_an_extraction_which_goes_on_once_there_is_room(
    data: Path, whole: Path, disk: Path, tmp_path: Path
) -> None:
    path = disk / "c.zarr"
    code, _, error = call(extract(data, path, workers=0), tmp_path)
    assert code == 2 and "they will not fit; make room" in error
    assert_last_line(error, "No space left on device", str(path))
    report = verify_cache(path)
    assert report.ok and 0 < len(report.pending_blocks) < 12
    remount(disk, "size=20M")
    code, _, error = call(extract(data, path, workers=0), tmp_path)
    assert code == 0, error
    assert files_below(path) == files_below(whole)


@pytest.mark.slow
def test_full_disk_stops_a_training_which_goes_on_once_there_is_room(whole: Path, disk: Path, tmp_path: Path) -> None:
    """Room for the config, not for a checkpoint; then the same weights as a run that had room."""
    out = disk / "run"
    (disk / "filler").write_bytes(bytes(920 * 1024))
    fit = [*FIT, "--cache", whole, "--out"]
    code, _, error = call([*fit, out], tmp_path)
    assert code == 2 and (out / "config.yaml").exists() and not (out / "metrics.json").exists(), error
    assert_last_line(error, "No space left on device", str(out))
    remount(disk, "size=20M")
    code, _, error = call(["fit-head", "--resume", "--out", out], tmp_path)
    assert code == 0, error
    assert call([*fit, tmp_path / "roomy"], tmp_path)[0] == 0
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "roomy" / "model.safetensors").read_bytes()
    assert not list(out.glob("*.partial"))


def test_read_only_disk_is_one_line(data: Path, whole: Path, disk: Path, tmp_path: Path) -> None:
    remount(disk, "ro")
    for command in (extract(data, disk / "c.zarr"), [*FIT, "--cache", whole, "--out", disk / "run"]):
        code, _, error = call(command, tmp_path)
        assert code == 2
        assert_last_line(error, "Read-only file system", str(disk))


@pytest.mark.slow
def test_folder_without_permission_is_one_line(data: Path, whole: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    for command in (extract(data, closed / "c.zarr"), [*FIT, "--cache", whole, "--out", closed / "run"]):
        code, error = run(command, tmp_path, obey_modes)
        assert code == 2
        assert_last_line(error, "Permission denied", str(closed))


def test_name_that_is_too_long_is_one_line(data: Path, tmp_path: Path) -> None:
    code, _, error = call(extract(data, tmp_path / f"{'x' * 300}.zarr"), tmp_path)
    assert code == 2
    assert_last_line(error, "File name too long")


@pytest.mark.slow
@pytest.mark.parametrize("handles", [8, 12])
def test_too_few_file_handles_are_one_line_and_nothing_committed_is_lost(
    data: Path, whole: Path, tmp_path: Path, handles: int
) -> None:
    path = tmp_path / "c.zarr"
    code, error = run(
        extract(data, path), tmp_path, partial(resource.setrlimit, resource.RLIMIT_NOFILE, (handles, handles))
    )
    assert code == 2
    assert_last_line(error, "Too many open files")
    assert call(extract(data, path, workers=0), tmp_path)[0] == 0
    assert files_below(path) == files_below(whole)
