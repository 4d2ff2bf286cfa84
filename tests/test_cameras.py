"""A dataset of two cameras, which no file of the package knows: its clips name the segment and the camera."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures.finetuning import SMALL
from fixtures.something_else import write_dataset
from fixtures.weights import random_weights

from ifcar.cache.export import export_hdf5
from ifcar.cache.joining import join_caches
from ifcar.cache.open import open_cache
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.schema import Split
from ifcar.cache.segments import Stream
from ifcar.cli import main
from ifcar.errors import CacheMismatchError, InputError
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.datasets.contract import Listing
from ifcar.extract.datasets.something_else import SomethingElse
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.finetune.run import finetune
from ifcar.pipelines.finetune.start import i3d_config, joint_config
from ifcar.pipelines.fit import fit
from ifcar.pipelines.predict import predict
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.questions import EvaluateConfig, PredictConfig
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


class OneLabel(TwoCameras):
    """A moment has one label, whichever camera sees it."""

    name = "two-cameras-one-label"

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        (table,), notes = super().protocols(clip_ids)
        labels = np.array([int(clip_id) // 2 % 2 for clip_id in clip_ids], table.labels.targets.dtype)
        return [replace(table, spaces=(replace(table.labels, targets=labels),))], notes


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DATASETS, "_items", dict(DATASETS._items))
        for own in (TwoCameras, OneLabel):
            DATASETS.register(own.name, own, __name__)
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


@pytest.mark.slow
def test_a_stream_whose_backbone_was_fine_tuned_on_its_camera_is_known_as_that_stream(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d", num_clips=16)
    given = {**SMALL, "frames": 8, "spatial_stride": 16, "weights": random_weights(tmp_path, "i3d_inception")}
    config = i3d_config(OneLabel.name, data_root=root, cameras=("ego",), epochs=1, **given)
    tuned = finetune(config, Silent(), out=tmp_path / "tuned", workers=1)
    own = extract(replace(tuned.extraction, out=tmp_path / "own.zarr", workers=0), Silent()).cache
    assert set(open_cache(own).clips.cameras) == {"ego"} and evaluate(tuned.run.path, EvaluateConfig(cache=own)).agrees

    third = replace(tuned.extraction, cameras=("third",), weights=given["weights"])
    caches = {
        name: extract(replace(made, grid=True, out=tmp_path / f"{name}.zarr", workers=0), Silent()).cache
        for name, made in (("ego", tuned.extraction), ("third", third))
    }
    streams = {name: Stream(cache=cache) for name, cache in caches.items()}
    path = join_caches(streams, tmp_path / "both.join.json").path
    schedule = ScheduleConfig(kind="stretched", epochs=2, batch_size=8, refit=False, held_out=0.0)
    options = {"num_blocks": 2, "embedding_dim": 8, "spaces": ["labels"]}
    learned = make_run_config("ccau", path, preset="small", settings=options, schedule=schedule)
    run = fit(learned, Silent(), out=tmp_path / "run").run
    told, tested = np.load(run.path / "tasks.npz"), run.predictions("test").clip_ids.tolist()
    for number, (stream, weights) in enumerate((("ego", str(tuned.backbone)), ("third", given["weights"]))):
        found = evaluate(run.path, EvaluateConfig(stream=stream))
        tasks = json.loads((run.path / "tasks.json").read_text())
        assert found.metrics.top1 == tasks[f"{stream}/labels"]["top1"] and found.agrees in (True, None)
        video = root / "frames" / f"{104 + number}"
        said = predict(run.path, video, Silent(), PredictConfig(stream=stream, weights=weights))
        place = tested.index("moment 52")
        np.testing.assert_allclose(said.answers[0].logits[0], told[f"{stream}/labels/logits"][place], atol=1e-3)
    with pytest.raises(InputError, match="these weights do not fit backbone 'i3d_inception'"):
        predict(run.path, video, Silent(), PredictConfig(stream="ego", weights=given["weights"]))

    alone = fit(make_run_config("i3d", own, preset="small", schedule=schedule), Silent(), out=tmp_path / "alone").run
    joint = joint_config(alone.path, weights=str(tuned.backbone), data_root=root, epochs=1)
    with pytest.raises(
        CacheMismatchError, match=r"the cameras ego, third have .*name those of its cache with --cameras"
    ):
        finetune(joint, Silent(), out=tmp_path / "joint", workers=1)
