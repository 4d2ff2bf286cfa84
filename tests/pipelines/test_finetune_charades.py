"""Wang and Gupta 2018 on Charades' files: the backbone, the graphs on its fixed features, then both together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.charades import CLASSES, NUM_FRAMES, TEST, TRAIN, write_charades
from fixtures.finetuning import SMALL
from fixtures.weights import random_weights
from safetensors.numpy import load_file

from ifcar.cache.open import open_cache
from ifcar.errors import CacheMismatchError, InputError
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.extract import extract
from ifcar.pipelines.finetune.distributed import Group
from ifcar.pipelines.finetune.run import FinetuneResult, finetune
from ifcar.pipelines.finetune.setting import open_setting
from ifcar.pipelines.finetune.start import i3d_config, joint_config
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.questions import EvaluateConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

pytestmark = pytest.mark.slow
ALONE = Group(number=0, size=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_charades(tmp_path_factory.mktemp("charades") / "data")


@pytest.fixture(scope="module")
def tuned(root: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    config = i3d_config(
        "charades",
        preset="wang-gupta",
        protocol="action-genome",
        data_root=root,
        weights=random_weights(root, "i3d_inception"),
        **{**SMALL, "frames": 8, "num_steps": 2, "views": 6},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IFCAR_CACHES", str(root.parent))
        return finetune(config, Silent(), out=tmp_path_factory.mktemp("tuned") / "run", workers=0)


@pytest.fixture(scope="module")
def cache(tuned: FinetuneResult) -> Path:
    result = extract(tuned.extraction, Silent())
    assert result.num_failed == 0
    return result.cache


def test_backbone_learns_several_labels_from_windows_and_three_crops(tuned: FinetuneResult, cache: Path) -> None:
    """The run's scores are those of its cache: for each class the highest of six views, two windows of three crops."""
    reader = open_cache(cache)
    views = reader.identity["views"]
    assert (views["sampling_fps"], views["framing"], views["num_views"]) == (6.0, "three-crops", 6)
    frames, crops = reader.table("frame_indices"), reader.table("crop")
    reader.close()
    steps = np.diff(frames[:6], axis=1)
    assert set(steps.ravel()) == {5}  # 30 a second, seen at 6
    assert all((frames[k] == frames[k // 3 * 3]).all() for k in range(6)) and (frames[0] != frames[3]).all()
    # 64 × 48: squares of 48, in the middle, at the left and at the right
    expected = [[0.5, 0.5, 0.75, 1.0], [0.375, 0.5, 0.75, 1.0], [0.625, 0.5, 0.75, 1.0]]
    np.testing.assert_allclose(crops[:6], expected * 2, atol=1e-6)
    (test,) = (m for m in tuned.run.metrics if m.split == "test")
    assert test.map is not None and test.top1 is None and tuned.run.data().classes == CLASSES
    again = evaluate(tuned.run.path, EvaluateConfig(cache=cache))
    assert again.agrees and again.metrics.map == pytest.approx(test.map)
    assert evaluate(tuned.run.path, EvaluateConfig(cache=cache, pool="mean")).agrees is None


def test_highest_of_the_views_is_what_a_class_scores(tuned: FinetuneResult, cache: Path) -> None:
    reader = open_cache(cache)
    weights = load_file(tuned.run.path / "model.safetensors")
    stored = tuned.run.predictions("test")
    place = reader.clip_ids.index(stored.clip_ids[0])
    rows = np.arange(6 * place, 6 * place + 6)
    features = reader.read_rows("frame_features", rows).astype(np.float32).mean(axis=1)
    each = features @ weights["classifier.weight"].T + weights["classifier.bias"]
    np.testing.assert_allclose(stored.logits[0], each.max(axis=0), atol=1e-3)
    reader.close()


def proposals(path: Path) -> Path:
    """Write two boxes for every frame of every video: at 6 a second few frames are annotated ones."""
    boxes = {frame + 1: [[4, 6, 28, 40], [20 + frame / 4, 10, 40 + frame / 4, 30]] for frame in range(NUM_FRAMES)}
    path.write_text(json.dumps(dict.fromkeys((*TRAIN, *TEST), boxes)))
    return path


def test_graphs_of_proposals_train_on_fixed_features_and_then_with_the_backbone(
    tuned: FinetuneResult, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IFCAR_CACHES", str(tmp_path))
    boxes, other = proposals(tmp_path / "boxes.json"), tmp_path / "other.json"
    cache = extract(replace(tuned.extraction, boxes=boxes, pooled="7-max", out=tmp_path / "c.zarr"), Silent()).cache
    schedule = ScheduleConfig(kind="wang-gupta", epochs=2)
    config = make_run_config("strg", cache, protocol="action-genome", preset="full", schedule=schedule)
    head = fit(config, Silent(), out=tmp_path / "head")
    narrow = {**config.options, "joint": {**config.options["joint"], "appearance_dim": 8}}
    with pytest.raises(
        CacheMismatchError, match=r"reduce 16 channels to 8 after the maximum .*joint.appearance_dim=16"
    ):
        fit(replace(config, options=narrow), Silent(), out=tmp_path / "narrow")
    assert (head.plan.kind, head.plan.batch_size, head.plan.lr) == ("wang-gupta", 4, 1.25e-3)  # 4 training clips
    given: dict[str, Any] = {"data_root": root, "weights": str(tuned.backbone), "num_steps": 2, "batch_size": 4}
    with pytest.raises(InputError, match=r"trained on boxes of a file .* --boxes"):
        joint_config(head.run.path, preset="wang-gupta", **given)
    other.write_text(boxes.read_text().replace("28", "29"))
    with pytest.raises(CacheMismatchError, match="name the same file"):
        open_setting(joint_config(head.run.path, boxes=other, **given), ALONE, Silent())
    joint = joint_config(head.run.path, preset="wang-gupta", boxes=boxes, **given)
    assert joint.live is not None and joint.schedule.lr == 1.25e-4 and joint.live.pool == "max"
    data = joint.live.data
    assert (data.sampling_fps, data.sampling, data.framing, data.views) == (6.0, None, "three-crops", 6)
    both = finetune(joint, Silent(), out=tmp_path / "both", workers=0)
    assert [m.split for m in both.run.metrics if m.map is not None] == ["train", "test"]
    again = extract(both.extraction, Silent())
    assert evaluate(both.run.path, EvaluateConfig(cache=again.cache)).agrees
