"""A dataset of two cameras, which no file of the package knows: its clips name the segment and the camera."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures.something_else import write_dataset

from ifcar.cache.export import export_hdf5
from ifcar.cache.open import open_cache
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.schema import Split
from ifcar.cli import main
from ifcar.errors import InputError
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.datasets.contract import Listing
from ifcar.extract.datasets.something_else import SomethingElse
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig


class TwoCameras(SomethingElse):
    """Clips 100 and 101 are the first moment, seen by two cameras; every fourth moment is for testing."""

    name = "two-cameras"
    summary = "Something-Else, as if two cameras had seen each moment"
    divided = False

    def listing(self, *, needs_pixels: bool) -> Listing:
        listing = super().listing(needs_pixels=needs_pixels)
        clips = [
            replace(clip, segment=f"moment {int(clip.clip_id) // 2}", camera=("ego", "third")[int(clip.clip_id) % 2])
            for clip in listing.clips
        ]
        return replace(listing, clips=clips)

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        tables, notes = super().protocols(clip_ids)
        moments = np.array([int(clip_id) // 2 + 2 * (self.divided and clip_id == "101") for clip_id in clip_ids])
        split = np.where(moments % 4, Split.TRAIN, Split.TEST).astype(np.uint8)
        alone = np.full(len(clip_ids), -1, np.int32)
        return [replace(tables[0], split=split, groups=alone, group_names=(), group_kind="")], notes


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DATASETS, "_items", dict(DATASETS._items))
        DATASETS.register(TwoCameras.name, TwoCameras, __name__)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_dataset(tmp_path_factory.mktemp("data") / "d", num_clips=32, pixels=False)
    out = root.parent / "c.zarr"
    extract(ExtractConfig(dataset="two-cameras", data_root=root, out=out, backbone="none", workers=0), Silent())
    return out


def test_segments_and_cameras_reach_the_cache_its_export_and_its_listing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export_hdf5(cache, tmp_path / "c.h5")
    for path in (cache, tmp_path / "c.h5"):
        reader = open_cache(path)
        for place, clip_id in enumerate(reader.clip_ids):
            assert reader.clips.segments[place] == f"moment {int(clip_id) // 2}"
            assert reader.clips.cameras[place] == ("ego", "third")[int(clip_id) % 2]
        reader.close()
    monkeypatch.setenv("IFCAR_CACHES", str(cache.parent))
    said = []
    for command in (["cache", "info", str(cache), "--json"], ["list", "caches", "--json"]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert not ended.value.code
        said.append(json.loads(capsys.readouterr().out))
    info, (listed,) = said
    assert (info["segments"], info["clips"], info["cameras"]) == (16, 32, {"ego": 16, "third": 16})
    assert (listed["segments"], listed["cameras"]) == (16, "ego, third")


def test_held_out_part_and_intervals_have_moments_whole(cache: Path, tmp_path: Path) -> None:
    schedule = ScheduleConfig(kind="stretched", epochs=2, batch_size=8, refit=False)
    config = make_run_config("base", cache, streams="layout", preset="small", schedule=schedule)
    run = fit(config, Silent(), out=tmp_path / "run").run
    parts = {name: run.predictions(name) for name in ("train", "held_out", "test")}
    held = {int(clip_id) // 2 for clip_id in parts["held_out"].clip_ids}
    assert len(held) > 0 and len(parts["held_out"].clip_ids) == 2 * len(held)
    for part in parts.values():
        moments = np.array([int(clip_id) // 2 for clip_id in part.clip_ids])
        assert part.segments is not None
        np.testing.assert_array_equal(moments[:, None] == moments, part.segments[:, None] == part.segments)


def test_protocol_that_divides_a_moment_is_refused_before_anything_is_extracted(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TwoCameras, "divided", True)
    config = ExtractConfig(
        dataset="two-cameras", data_root=cache.parent / "d", out=tmp_path / "c.zarr", backbone="none", workers=0
    )
    with pytest.raises(InputError, match="clips '100' and '101' of the segment 'moment 50' are not in the same part"):
        extract(config, Silent())
    assert not (tmp_path / "c.zarr").exists()
