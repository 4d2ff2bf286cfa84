"""A data set extracted in parts: the blocks of the whole, and runs that are equal to those of the whole."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixtures.something_else import write_dataset

from ifcar.cache.manifest import Manifest
from ifcar.cache.open import open_cache
from ifcar.cache.parts import write_parts
from ifcar.errors import CacheMismatchError, InputError
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.cache_options import RecomputeConfig
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.recompute import recompute
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

CLIPS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a data set `d`, its cache `w.zarr`, and the list of its parts `w.parts.json`."""
    folder = tmp_path_factory.mktemp("parts")
    write_dataset(folder / "d", CLIPS, pixels=False)
    extract(options(folder, "w.zarr"))
    parts = [extract(options(folder, f"{k}.zarr", part=f"{k}/2")).cache for k in (1, 2)]
    write_parts(parts[::-1], folder / "w.parts.json").close()
    return folder


def options(folder: Path, out: str, **given: Any) -> ExtractConfig:
    return ExtractConfig(
        dataset="something-else", data_root=folder / "d", backbone="none", views=2, workers=0, out=folder / out, **given
    )


def block_bytes(cache: Path, manifest: Manifest) -> list[dict[str, bytes]]:
    files = [manifest.block_files(block) for block in range(manifest.num_blocks)]
    return [{array: (cache / name).read_bytes() for array, name in own.items()} for own in files]


@pytest.mark.slow(seconds=3)
def test_the_blocks_of_parts_are_those_of_the_whole_byte_for_byte(folder: Path) -> None:
    whole, *parts = (open_cache(folder / name) for name in ("w.zarr", "1.zarr", "2.zarr"))
    assert [part.num_clips for part in parts] == [128, CLIPS - 128]
    found = [own for part in parts for own in block_bytes(part.path, part.manifest)]
    assert found == block_bytes(whole.path, whole.manifest) and len(found) == 3
    joined = open_cache(folder / "w.parts.json")
    assert (joined.fingerprint, joined.environment) == (whole.fingerprint, whole.environment)


@pytest.mark.slow(seconds=3)
@pytest.mark.parametrize("memory", ["ram", "stream"])
def test_a_run_from_parts_is_that_from_the_whole_byte_for_byte(folder: Path, tmp_path: Path, memory: Any) -> None:
    runs = []
    for name in ("w.zarr", "w.parts.json"):
        schedule = ScheduleConfig(kind="paper", epochs=2, batch_size=32)
        config = make_run_config("base", folder / name, preset="small", streams="layout", schedule=schedule)
        out = tmp_path / name
        fit(config, out=out, device="cpu", memory=memory)
        files = {own: (out / own).read_bytes() for own in ("model.safetensors", "predictions.npz", "data.json")}
        history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
        runs.append((files, untimed(history), untimed(json.loads((out / "metrics.json").read_text()))))
    assert runs[0] == runs[1]


def untimed(content: Any) -> Any:
    """Return a record without the seconds that it states."""
    if isinstance(content, list):
        return [untimed(own) for own in content]
    if isinstance(content, dict):
        return {key: untimed(own) for key, own in content.items() if "sec" not in key}
    return content


@pytest.mark.slow
def test_rows_of_a_part_and_of_parts_are_made_again(folder: Path) -> None:
    for name in ("2.zarr", "w.parts.json"):
        again = recompute(folder / name, RecomputeConfig(rows=3, data_root=folder / "d"), Silent())
        assert len(again.rows) == 3 and not again.faults


@pytest.mark.slow(seconds=3)
def test_parts_of_other_split_files_are_refused_until_extracted_again(folder: Path, tmp_path: Path) -> None:
    """The annotations are the same, so that the fingerprint is; clips 0 and 299 lie in different parts."""
    other = tmp_path / "d"
    shutil.copytree(folder / "d", other)
    train, test = (sorted((other / "splits").rglob(f"{name}.json"))[0] for name in ("train", "validation"))
    assert train.parent == test.parent
    trained, tested = (json.loads(path.read_text()) for path in (train, test))
    for path, content in ((train, [*trained[1:], tested[0]]), (test, [trained[0], *tested[1:]])):
        path.write_text(json.dumps(content))
    parts = [tmp_path / "1.zarr", tmp_path / "2.zarr"]
    for k, root in ((1, folder / "d"), (2, other)):
        extract(replace(options(folder, "", part=f"{k}/2"), out=parts[k - 1], data_root=root))
    with pytest.raises(
        CacheMismatchError, match=r"protocol .* was read from other files for .*1\.zarr than for .*2\.zarr"
    ):
        write_parts(parts, tmp_path / "x.parts.json")
    assert not (tmp_path / "x.parts.json").exists()
    extract(replace(options(folder, "", part="1/2"), out=parts[0], data_root=other))
    write_parts(parts, tmp_path / "x.parts.json").close()


@pytest.mark.slow
def test_a_part_that_cannot_be_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    for given, said in {
        (("part", "1/4"),): r"--part 1/4: 300 clips of 2 rows .* after every 128 clips; expected at most 3 parts",
        (("part", "3/2"),): r"part '3/2': expected K/N",
        (("part", "1/2"), ("limit", 5)): r"--part 1/2: .*leave --limit and --cameras out",
    }.items():
        with pytest.raises(InputError, match=said):
            extract(options(folder, str(tmp_path / "none.zarr"), **dict(given)))
    assert not (tmp_path / "none.zarr").exists()
