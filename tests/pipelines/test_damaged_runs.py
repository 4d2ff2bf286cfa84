"""Runs whose files are cut short, and caches that hold values that are no numbers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Provenance, Split, Status
from ifcar.cache.writer import CacheWriter
from ifcar.errors import InputError
from ifcar.pipelines.ensemble import ensemble
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.finetune.checkpoint import load_live
from ifcar.pipelines.finetune.trainer import LiveTrainer
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.training.checkpoint import load_state
from ifcar.pipelines.training.trainer import NonFiniteError

SPEC = CacheSpec.standard(num_frames=2, num_steps=1, num_instances=1, channels=4, pooled_size=1)
CLIPS = 24


def write_cache(path: Path, *, bad_clip: int | None = None) -> Path:
    """Write random frame features; those of one clip hold a NaN."""
    rng = np.random.default_rng(0)
    table = ProtocolTable(
        name="random",
        spaces=(LabelSpace(kind="single", classes=("a", "b"), targets=(np.arange(CLIPS) % 2).astype(np.int16)),),
        split=np.where(np.arange(CLIPS) < 16, Split.TRAIN, Split.TEST).astype(np.uint8),
        groups=np.full(CLIPS, -1, np.int32),
    )
    writer = CacheWriter.create(
        path,
        spec=SPEC,
        provenance=Provenance(identity={"dataset": {"name": "random"}}),
        clip_ids=[f"clip{k}" for k in range(CLIPS)],
        num_views=1,
        protocols=[table],
    )
    arrays = SPEC.empty_rows(CLIPS)
    arrays["frame_features"][:] = rng.random(arrays["frame_features"].shape)
    arrays["status"][:] = Status.DONE
    if bad_clip is not None:
        arrays["frame_features"][bad_clip, 0, 2] = np.nan
    writer.write_block(0, arrays, {})
    return path


def config(cache: Path, epochs: int = 20) -> RunConfig:
    schedule = ScheduleConfig(kind="stretched", epochs=epochs, batch_size=8, held_out=0)
    return make_run_config("i3d", cache, schedule=schedule)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return fit(config(write_cache(tmp_path / "c.zarr")), Silent(), out=tmp_path / "run").run


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_weights_cut_short_are_named(run: Run, share: float) -> None:
    path = run.path / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        evaluate(run.path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_predictions_cut_short_are_named(run: Run, share: float) -> None:
    whole = run.path.parent / "whole"
    shutil.copytree(run.path, whole)
    path = run.path / "predictions.npz"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=r"predictions\.npz: cannot be read.*remove the folder"):
        ensemble([run.path, whole], out=run.path.parent / "both")


def test_weights_of_another_head_are_named(run: Run, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    weights = load_file(run.path / "model.safetensors")
    save_file({f"other.{key}": value for key, value in weights.items()}, run.path / "model.safetensors")
    with pytest.raises(InputError, match="weights of another head"):
        evaluate(run.path)


def test_feature_that_is_no_number_stops_training_before_the_weights_move(tmp_path: Path) -> None:
    """The step and the clips of its batch are named, and nothing that looks like a run is left."""
    cache = write_cache(tmp_path / "c.zarr", bad_clip=5)
    with pytest.raises(NonFiniteError, match=r"not finite at step \d+ .*weights left as they were; clips: .*clip5"):
        fit(config(cache), Silent(), out=tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists() and not (tmp_path / "run" / "model.safetensors").exists()


def test_tensors_without_a_training_state_are_no_checkpoint(tmp_path: Path) -> None:
    save_file({"x": np.zeros(1)}, tmp_path / "checkpoint.safetensors")
    for load in (lambda folder: load_state(folder, ["a"]), lambda folder: load_live(folder, cast(LiveTrainer, None))):
        with pytest.raises(InputError, match=r"checkpoint\.safetensors: is no checkpoint"):
            load(tmp_path)
