"""A backbone that no file of the package knows goes the whole way: list, extract, read back, fine-tune, predict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fixtures import patches
from fixtures.something_else import write_dataset
from numpy.typing import NDArray
from torch import Tensor

from ifcar.cache.open import open_cache
from ifcar.errors import CacheMismatchError, InputError
from ifcar.extract.backbones.base import BACKBONES, Backbone, BackboneFamily, Maps
from ifcar.extract.backbones.catalog import build_backbone, resolve_backbone
from ifcar.extract.backbones.fold import channels_last, folded
from ifcar.extract.backbones.random_init import BATCH_NORMS
from ifcar.extract.backbones.spec import FRAMES, BackboneRequest, BackboneSpec
from ifcar.extract.decoded_views import READERS
from ifcar.extract.picture_source import PictureSource, VideoInfo
from ifcar.extract.roi import roi_features
from ifcar.extract.view_content import View
from ifcar.extract.views import ViewPolicy
from ifcar.extract.weights import digest_of, load_weights
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.backbones import backbone_of
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.preparation import prepare
from ifcar.pipelines.finetune.run import finetune
from ifcar.pipelines.finetune.start import i3d_config
from ifcar.pipelines.fit import fit
from ifcar.pipelines.listing import list_backbones
from ifcar.pipelines.predict import predict
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.questions import PredictConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig


@pytest.fixture(scope="module", autouse=True)
def known() -> Iterator[None]:
    with patches.registered():
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("open")
    write_dataset(place / "data", num_clips=8)
    return place


@pytest.fixture(scope="module")
def state(place: Path) -> dict[str, Tensor]:
    return patches.write_folder(place / "folder")


@pytest.fixture(scope="module")
def config(place: Path, state: dict[str, Tensor]) -> ExtractConfig:
    return ExtractConfig(
        dataset="something-else",
        data_root=place / "data",
        out=place / "patches.zarr",
        backbone="patches",
        backbone_options={"coarse": "max"},
        weights=str(place / "folder"),
        frames=4,
        crop=56,
        grid=True,
        workers=0,
    )


@pytest.fixture(scope="module")
def cache(config: ExtractConfig) -> Path:
    assert extract(config, Silent()).num_failed == 0
    return config.out or Path()


def test_features_are_those_of_the_formula(cache: Path, config: ExtractConfig, state: dict[str, Tensor]) -> None:
    """Folded, channels last and rounded, they equal convolution and norm written out, with statistics per channel."""
    reader, views = open_cache(cache), prepare(config, Silent()).views()
    for row in (0, 5):
        seen = views[row]
        assert seen.inputs is not None and seen.view is not None
        rgb = seen.inputs[::2].double() / 255
        frames = ((rgb - torch.tensor(patches.MEAN)) / torch.tensor(patches.STD)).permute(0, 3, 1, 2)
        double = {key: value.double() for key, value in state.items()}
        mapped = F.conv2d(frames, double["conv.weight"], double["conv.bias"], stride=14)
        scale = double["norm.weight"] / (double["norm.running_var"] + 1e-5).sqrt()
        shift = double["norm.bias"] - double["norm.running_mean"] * scale
        fine = (mapped * scale[:, None, None] + shift[:, None, None]).relu()  # (2, 6, 4, 4)
        boxes, categories = torch.from_numpy(seen.view.boxes), torch.from_numpy(seen.view.categories)
        expected = {
            "grid_features": fine,
            "frame_features": F.max_pool2d(fine, 2).mean(dim=(2, 3)),
            "instance_features": roi_features(fine.transpose(0, 1)[None], boxes[None], categories[None], "3")[0],
        }
        for name, values in expected.items():
            found = reader.read_rows(name, np.array([row]))[0]
            np.testing.assert_allclose(found, values.numpy(), rtol=2e-3, atol=2e-3, err_msg=name)


def test_identity_holds_facts_options_and_the_folders_digest(cache: Path, config: ExtractConfig, place: Path) -> None:
    assert open_cache(cache).identity["backbone"] == {
        "name": "patches",
        "weights": digest_of(place / "folder"),
        "layer": "norm",
        "spatial_stride": 14,
        "pooled": "3",
        "precision": "fp32",
        "facts": {"width": 6, "mean": list(patches.MEAN), "std": list(patches.STD)},
        "config": {"coarse": "max"},
    }
    with pytest.raises(CacheMismatchError, match="config"):
        extract(replace(config, backbone_options={}), Silent())


class Loudness(Backbone):
    """Reads (B, T, 2) of two microphones; one map, of frames, that no crop of pixels gives its size."""

    def normalise(self, inputs: Tensor) -> Tensor:
        return inputs.float() / 100

    def forward(self, video: Tensor) -> Maps:
        return {FRAMES: video.transpose(1, 2)[..., None, None] * torch.arange(6).view(3, 2)}


def test_sound_is_read_by_the_reader_of_sound_and_pools_no_instances(
    config: ExtractConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(request: BackboneRequest) -> BackboneSpec:
        steps = request.num_frames
        maps = {FRAMES: (3, 2)}
        return BackboneSpec(
            name="loudness", reads="audio", num_frames=steps, num_steps=steps, crop_size=0, layer_channels=2, maps=maps
        )

    def listen(source: PictureSource, info: VideoInfo, view: View, policy: ViewPolicy) -> NDArray[np.int32]:
        return np.stack([view.frame_indices, view.frame_indices + int(source.path.stem)], axis=1)

    monkeypatch.setitem(BACKBONES._items, "loudness", (BackboneFamily(resolve=resolve, build=Loudness), __name__))
    monkeypatch.setitem(READERS._items, "audio", (listen, __name__))
    out = tmp_path / "sound.zarr"
    own = {"backbone": "loudness", "backbone_options": {}, "weights": "random:0", "crop": None}
    extract(replace(config, out=out, **own), Silent())
    reader = open_cache(out)
    heard = reader.table("frame_indices")[0] / 100  # (T,), of clip 100
    expected = np.stack([heard, heard + 1], axis=1)[..., None, None] * np.arange(6).reshape(3, 2)
    np.testing.assert_allclose(reader.read_rows("grid_features", np.array([0]))[0], expected, rtol=1e-3)
    np.testing.assert_allclose(reader.read_rows("frame_features", np.array([0]))[0], expected.mean((2, 3)), rtol=1e-3)
    assert "instance_features" not in reader.spec


def test_list_shows_it_with_what_its_folder_says(place: Path, state: dict[str, Tensor]) -> None:
    columns, rows = list_backbones()
    shown = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert "needs --weights FOLDER" in shown["patches"]["layer"]
    columns, rows = list_backbones(str(place / "folder"))
    assert [dict(zip(columns, row, strict=True)) for row in rows] == [
        {
            "name": "patches",
            "reads": "pixels",
            "spatial stride": 14,
            "channels": 6,
            "steps": "T/2",
            "cells of 224²": "instances 16×16, frames 8×8",
            "weights": None,
            "layer": "norm",
            "frames": 32,
            "giga multiply-adds": 0.0145,  # 16 steps of 16 × 16 cells, 6 × 3 × 14² each
            "instance bytes": 2 * 16 * 4 * 6 * 9,
            "grid bytes": 2 * 16 * 6 * 16 * 16,
        }
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 60}, "multiple of 28, such as --crop 56 or 84"),
        ({"frames": 3}, "positive multiple of 2"),
        ({"spatial_stride": 16}, "expected 14"),
        ({"weights": None}, "needs --weights FOLDER"),
        ({"weights": "published"}, "needs --weights FOLDER"),
        ({"backbone_options": {"coarse": "min"}}, "expected one of mean, max"),
        ({"backbone_options": {"corse": "max"}}, "did you mean 'coarse'"),
        ({"backbone": "i3d_r50"}, "'i3d_r50' has no options of its own"),
        ({"backbone": "patches:small"}, "expected patches"),
    ],
)
def test_what_it_cannot_take_is_one_line(config: ExtractConfig, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        backbone_of(replace(config, **changes))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_random_weights_need_no_folder_and_no_classifier() -> None:
    spec = resolve_backbone("patches", num_frames=4, crop_size=56, weights="random:3")
    first, second = build_backbone(spec), build_backbone(spec)
    assert load_weights(first, "random:3").identity == "random:3"
    load_weights(second, "random:3")
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
    assert first.norm.running_mean.any()  # type: ignore[union-attr, operator]
    lean = channels_last(folded(first))
    assert not any(isinstance(module, BATCH_NORMS) for module in lean.modules())
    assert lean.conv.weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[union-attr, operator]


def test_maps_other_than_the_stated_ones_are_refused() -> None:
    backbone = build_backbone(resolve_backbone("patches", num_frames=4, crop_size=56, weights="random:0"))
    video = backbone.normalise(torch.zeros((1, 4, 84, 84, 3), dtype=torch.uint8))
    with pytest.raises(InputError, match=r"gives maps .*\(4, 2, 6, 6\).* but states .*\(4, 2, 4, 4\)"):
        backbone.checked(backbone(video))


@pytest.mark.slow
def test_run_on_it_predicts_as_from_its_cache(cache: Path, config: ExtractConfig, place: Path) -> None:
    """The run keeps the facts: weights with others, or in another folder, are another backbone's."""
    schedule = ScheduleConfig(kind="stretched", epochs=4, batch_size=4, held_out=0.0)
    run = fit(make_run_config("i3d", cache, schedule=schedule), Silent(), out=place / "run").run
    stored = run.predictions("test")
    frames, boxes = place / "data" / "frames" / stored.clip_ids[0], place / "data" / "annotations.json"
    said = predict(run.path, frames, Silent(), PredictConfig(boxes=boxes, weights=config.weights))
    np.testing.assert_allclose(said.answers[0].logits[0], stored.logits[0], atol=1e-4)
    other = place / "other"
    patches.write_folder(other)
    (other / "config.json").write_text(json.dumps({"width": patches.WIDTH}))
    with pytest.raises(CacheMismatchError, match="trained on patches weights"):
        predict(run.path, frames, Silent(), PredictConfig(boxes=boxes, weights=str(other)))


def test_fine_tuned_it_needs_its_folder_no_more(
    config: ExtractConfig, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IFCAR_CACHES", str(tmp_path))
    options = {key: getattr(config, key) for key in ("data_root", "backbone", "backbone_options", "frames", "crop")}
    start = i3d_config(
        "something-else", **options, weights=config.weights, freeze_to="conv", reduction=5, epochs=1, lr=1e-2
    )
    assert start.live is not None and start.live.data.spatial_stride == 14
    result = finetune(start, Silent(), out=tmp_path / "tuned", workers=0)
    again = extract(replace(result.extraction, workers=0), Silent())
    reader = open_cache(again.cache)
    assert reader.fingerprint == result.run.config.fingerprint
    assert reader.identity["backbone"]["reduction"] == reader.spec.channels == 5
    assert reader.identity["backbone"]["facts"]["width"] == patches.WIDTH
