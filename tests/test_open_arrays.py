"""An array that no file of the package knows: made by a dataset and read by a head, both of which stand here.

The dataset is Something-Else's with two more arrays: how far every instance is, and the masks and classes of its
tracks. How far tells the classes apart; nothing else that the head reads does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from fixtures.something_else import HEIGHT, WIDTH, write_dataset
from fixtures.weights import random_weights
from numpy.typing import NDArray
from torch import nn

from ifcar.cache.arrays import MASKS, ArraySpec, CacheSpec, object_classes
from ifcar.cache.export import export_hdf5
from ifcar.cache.open import open_cache
from ifcar.cache.schema import Status
from ifcar.cache.verify import verify_cache
from ifcar.errors import CacheMismatchError, InputError
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.datasets.something_else import SomethingElse
from ifcar.extract.tracks import Tracks
from ifcar.extract.view_content import View
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import Head, HeadOutput, InstanceBatch
from ifcar.heads.rows import masked_mean
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.finetune.run import finetune
from ifcar.pipelines.finetune.start import joint_config
from ifcar.pipelines.fit import fit
from ifcar.pipelines.grid.config import GridConfig
from ifcar.pipelines.grid.lines import SystemConfig
from ifcar.pipelines.grid.plan import plan_grid
from ifcar.pipelines.listing import describe_cache
from ifcar.pipelines.predict import predict
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.report.config import ReportConfig
from ifcar.pipelines.report.report import report
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.questions import EvaluateConfig, PredictConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.training.jobs import Job
from ifcar.pipelines.training.together import FitResult, fit_together

DEPTH = ArraySpec(name="depth", axes=("T", "N"), dtype="float32", role="layout")
CLASSES = ("hand", "thing")
BRIEF = ScheduleConfig(kind="stretched", min_steps=60, batch_size=8, held_out=0.0)
FEW = replace(BRIEF, epochs=4)
"""For runs of which nobody asks what they learned."""


class DepthDataset(SomethingElse):
    """Even clips come nearer, odd ones go away; masks are the boxes' rectangles."""

    name = "something-deep"
    summary = "Something-Else with depth, masks and classes"
    track_arrays = (MASKS, object_classes(CLASSES))
    view_arrays = (DEPTH,)
    damaged: ClassVar[str] = ""

    def tracks(self, clip_id: str) -> Tracks:
        tracks = super().tracks(clip_id)
        masks = np.zeros((*tracks.boxes.shape[:2], HEIGHT, WIDTH), np.uint8)
        for place in np.ndindex(masks.shape[:2]):
            if np.isfinite(tracks.boxes[place]).all():
                x1, y1, x2, y2 = tracks.boxes[place].clip(min=0).astype(int)
                masks[place][y1:y2, x1:x2] = 255
        classes = np.broadcast_to(tracks.categories - 1, masks.shape[:2]).astype(np.int16)
        return replace(tracks, values={"masks": masks, "object_classes": classes})

    def arrays_of_view(self, clip: Clip, view: View) -> Mapping[str, NDArray[Any]]:
        if clip.clip_id == self.damaged:
            raise InputError(f"clip {clip.clip_id!r}: its depth is damaged")
        way = 1 if int(clip.clip_id) % 2 else -1
        depth = 5 + way * view.frame_indices[:, None] / 10 + np.zeros_like(view.categories)
        return {"depth": np.where(view.categories > 0, depth, 0).astype(np.float32)}


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthConfig:
    frame: bool = False


class DepthHead(Head):
    """Score a clip by how its instances' depth changes, and by the frame where asked for."""

    name = "depth-change"
    source = "this test"
    formula = "logits = W [mean_i d_i^T − d_i^1 ; mean_t frame_t] + b"
    config_type = DepthConfig
    presets: ClassVar[Mapping[str, DepthConfig]] = {"paper": DepthConfig(), "small": DepthConfig()}

    @classmethod
    def reads(cls, config: DepthConfig) -> tuple[str, ...]:
        return ("depth", "categories", *(("frame_features",) if config.frame else ()))

    def __init__(self, config: DepthConfig, spec: CacheSpec, num_classes: int) -> None:
        super().__init__(config, spec, num_classes)
        self.frame = config.frame
        self.classifier = nn.Linear(1 + config.frame * spec.channels, num_classes)

    def forward(self, batch: InstanceBatch) -> HeadOutput:
        mask = (batch.categories[:, 0] > 0) & (batch.categories[:, -1] > 0)
        depth = batch.array("depth").to(self.classifier.weight.dtype)
        change = masked_mean((depth[:, -1] - depth[:, 0]).unsqueeze(-1), mask, dim=1)
        parts = [change]
        if self.frame:
            parts.append(batch.array("frame_features").to(change.dtype).mean(1))
        return HeadOutput(logits=self.classifier(torch.cat(parts, dim=-1)))


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    """Register both as an outsider would, for this file's tests only."""
    with pytest.MonkeyPatch.context() as patch:
        for registry in (HEADS, DATASETS):
            patch.setattr(registry, "_items", dict(registry._items))
        HEADS.register(DepthHead.name, DepthHead, __name__)
        DATASETS.register(DepthDataset.name, DepthDataset, __name__)
        yield


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("runs", "caches"):
        monkeypatch.setenv(f"IFCAR_{kind.upper()}", str(tmp_path / kind))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("deep") / "d", num_clips=8)


def options(root: Path, out: Path, **changes: Any) -> ExtractConfig:
    given = {"backbone": "i3d_inception", "weights": random_weights(root, "i3d_inception"), "crop": 32, "workers": 0}
    return ExtractConfig(dataset=DepthDataset.name, data_root=root, out=out, **{**given, **changes})


@pytest.fixture(scope="module")
def cache(root: Path) -> Path:
    return extract(options(root, root.parent / "deep.zarr"), Silent()).cache


@pytest.fixture(scope="module")
def bare(root: Path) -> Path:
    """A cache of the plain dataset, without depth."""
    plain = ExtractConfig(
        dataset="something-else", data_root=root, out=root.parent / "bare.zarr", backbone="none", workers=0
    )
    return extract(plain, Silent()).cache


def config(cache: Path, *, seed: int = 0, **settings: object) -> RunConfig:
    return make_run_config(DepthHead.name, cache, settings=settings, schedule=BRIEF, seed=seed)


@pytest.fixture(scope="module")
def run(cache: Path) -> FitResult:
    return fit(config(cache), Silent(), out=cache.parent / "run", device="cpu")


def test_the_cache_lists_and_holds_what_the_dataset_gives(cache: Path, tmp_path: Path) -> None:
    reader = open_cache(cache)
    assert verify_cache(cache).ok and not reader.failures()
    assert [a for a in reader.spec.arrays if a.name in ("depth", "masks", "object_classes")] == [
        *DepthDataset.track_arrays,
        DEPTH,
    ]
    assert reader.spec.array("object_classes").classes == CLASSES
    rows = np.arange(reader.num_rows)
    boxes, categories, classes = (reader.table(name) for name in ("boxes", "categories", "object_classes"))
    np.testing.assert_array_equal(classes, categories.astype(np.int16) - 1)  # −1 in empty slots
    masks = reader.read_rows("masks", rows)
    np.testing.assert_allclose(masks.mean((-2, -1)) / 255, boxes[..., 2] * boxes[..., 3], atol=2e-3)
    depth, frames = reader.table("depth"), reader.table("frame_indices")
    way = np.array([1 if int(clip_id) % 2 else -1 for clip_id in reader.clip_ids])
    expected = 5 + way[:, None, None] * frames[..., None] / 10
    np.testing.assert_allclose(depth, np.where(categories > 0, expected, 0), rtol=1e-6)
    listed = {row[0]: row[1:3] for row in describe_cache(cache)["arrays"]}
    assert listed["masks"] == [[8, 8, 4, 28, 28], "uint8"] and listed["depth"] == [[8, 8, 4], "float32"]
    export_hdf5(cache, tmp_path / "deep.h5")
    exported = open_cache(tmp_path / "deep.h5")
    assert exported.spec == reader.spec and verify_cache(tmp_path / "deep.h5").ok
    np.testing.assert_array_equal(exported.read_rows("masks", rows), masks)


def test_a_clip_whose_array_cannot_be_made_fails_alone_and_holds_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DepthDataset, "damaged", "103")
    reader = open_cache(extract(options(root, tmp_path / "c.zarr", backbone="none", weights=None), Silent()).cache)
    assert (reader.status() == Status.DONE).sum() == 7
    assert [(f.clip_id, f.reason) for f in reader.failures()] == [("103", "clip '103': its depth is damaged")]
    row = reader.failures()[0].row
    assert (reader.table("object_classes")[row] == -1).all() and not reader.table("depth")[row].any()


def test_a_cache_is_finished_with_the_same_bytes_and_not_with_other_arrays(cache: Path, root: Path) -> None:
    assert extract(options(root, cache), Silent()).num_computed == 0
    with pytest.raises(CacheMismatchError, match=r"array depth is \{.*\"float32\".*\} in the cache, absent now"):
        extract(replace(options(root, cache), dataset="something-else"), Silent())


@pytest.mark.slow
def test_the_head_learns_from_the_array_alone_and_scores_from_it(run: FitResult) -> None:
    scores = {metric.split: metric.top1 for metric in run.run.metrics}
    assert scores == {"train": 1.0, "test": 1.0}
    assert evaluate(run.run.path).agrees


@pytest.mark.slow
def test_runs_that_train_together_get_the_array_too(cache: Path, run: FitResult, tmp_path: Path) -> None:
    jobs = [Job(config=config(cache, seed=seed), path=tmp_path / f"r{seed}") for seed in (0, 1)]
    (tmp_path / "fleet").mkdir()
    together = fit_together(jobs, tmp_path / "fleet", Silent(), device="cpu")
    alone = run.run.predictions("test").logits
    assert isinstance(together[0], FitResult)
    np.testing.assert_allclose(together[0].run.predictions("test").logits, alone, atol=1e-4)


@pytest.mark.slow
def test_the_same_head_trains_with_its_backbone_live(cache: Path, root: Path, tmp_path: Path) -> None:
    """Live logits are those of the cache, with depth beside features that the backbone makes."""
    from_cache = fit(
        replace(config(cache, frame=True), schedule=FEW), Silent(), out=tmp_path / "head", device="cpu"
    ).run
    weights = random_weights(root, "i3d_inception")
    given = {"data_root": root, "weights": weights, "num_steps": 1, "batch_size": 4, "lr": 1e-9, "head_lr": 1e-9}
    live = finetune(joint_config(from_cache.path, **given), Silent(), out=tmp_path / "live", workers=0, device="cpu")
    cached, found = (run.predictions("test").logits for run in (from_cache, live.run))
    np.testing.assert_allclose(found, cached, atol=1e-3)


@pytest.mark.slow
def test_orn_trains_on_features_pooled_under_masks_from_the_cache_and_live(root: Path, tmp_path: Path) -> None:
    made = extract(options(root, tmp_path / "masked.zarr", pooled="mask"), Silent()).cache
    assert open_cache(made).spec.shape("instance_features")[-2:] == (1, 1)
    orn = make_run_config("orn", made, preset="small", aux_weight=1.0, schedule=FEW)
    from_cache = fit(orn, Silent(), out=tmp_path / "orn", device="cpu").run
    weights = random_weights(root, "i3d_inception")
    given = {"data_root": root, "weights": weights, "num_steps": 1, "batch_size": 4, "lr": 1e-9, "head_lr": 1e-9}
    live = finetune(joint_config(from_cache.path, **given), Silent(), out=tmp_path / "live", workers=0, device="cpu")
    cached, found = (run.predictions("test").logits for run in (from_cache, live.run))
    np.testing.assert_allclose(found, cached, atol=1e-2 * float(np.abs(cached).max()))
    with pytest.raises(InputError, match="reads the array 'masks', which something-deep gives"):
        predict(from_cache.path, root / "frames" / "101", Silent(), PredictConfig(boxes=root / "annotations.json"))
    plain = replace(options(root, tmp_path / "plain.zarr", pooled="mask"), dataset="something-else")
    with pytest.raises(InputError, match="--pooled mask: dataset 'something-else' gives no masks here; expected 3 or"):
        extract(plain, Silent())


@pytest.mark.slow
def test_a_report_shows_a_run_on_the_array(run: FitResult, root: Path, tmp_path: Path) -> None:
    page = report([run.run.path], Silent(), ReportConfig(out=tmp_path / "report", num_clips=1, data_root=root)).page
    assert DepthHead.name in page.read_text(encoding="utf-8")


def test_every_path_says_in_one_line_which_array_is_missing(
    cache: Path, bare: Path, run: FitResult, root: Path, tmp_path: Path
) -> None:
    missing = r"head 'depth-change' cannot read this cache, which has no array 'depth'; there are boxes, categories, "
    missing += ".*extract a dataset that gives it"
    where = str(bare)
    with pytest.raises(CacheMismatchError, match=f"{where}: {missing}"):
        fit(config(bare), Silent(), out=tmp_path / "a")
    jobs = [Job(config=config(bare, seed=seed), path=tmp_path / f"b{seed}") for seed in (0, 1)]
    with pytest.raises(CacheMismatchError, match=f"{where}: {missing}"):
        fit_together(jobs, tmp_path / "fleet", Silent())
    grid = GridConfig(name="g", title="", systems=(SystemConfig(name="A", head=DepthHead.name),))
    with pytest.raises(CacheMismatchError, match=f"system 'A': {where}: {missing}"):
        plan_grid(grid, bare)
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in run.run.path.iterdir():
        if file.is_file():
            text = file.read_bytes().replace(
                open_cache(cache).fingerprint.encode(), open_cache(bare).fingerprint.encode()
            )
            (moved / file.name).write_bytes(text)
    with pytest.raises(CacheMismatchError, match=missing):
        evaluate(moved, EvaluateConfig(cache=bare))
    with pytest.raises(InputError, match="reads the array 'depth', which something-deep gives"):
        predict(run.run.path, root / "frames" / "101", Silent(), PredictConfig(boxes=root / "annotations.json"))
    with pytest.raises(CacheMismatchError, match="this batch has no array 'depth'; there are categories"):
        InstanceBatch({"categories": torch.zeros(1)}).array("depth")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (ArraySpec(name="depth", axes=("N", "T"), dtype="float32", role="layout"), "has the axes"),
        (ArraySpec(name="depth", axes=("T", "N", "C"), dtype="float32", role="layout"), "has the axes"),
        (ArraySpec(name="boxes", axes=("T", "N"), dtype="float32", role="layout"), "'boxes' is given twice"),
    ],
)
def test_arrays_that_no_cache_can_hold_are_refused_before_anything_is_read(
    array: ArraySpec, message: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DepthDataset, "track_arrays", (array,))
    with pytest.raises(InputError, match=message):
        extract(options(root, tmp_path / "c.zarr", backbone="none", weights=None), Silent())


@pytest.mark.parametrize("name", ["commits", "zarr.json", "Depth", "", "a" * 65])
def test_a_name_that_is_no_array_s_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="is not usable"):
        ArraySpec(name=name, axes=("T",), dtype="float32", role="layout")
