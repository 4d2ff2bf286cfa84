"""Fine-tuning: live against cached features, micro-batches, resume, files that other commands take, bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.finetuning import small_i3d
from fixtures.processes import Command, call
from fixtures.something_else import write_dataset
from fixtures.weights import random_weights
from safetensors.torch import load_file

from ifcar.cache.open import open_cache
from ifcar.errors import CacheMismatchError, InputError, MissingDataError
from ifcar.extract.backbones.downloads import sha256_file
from ifcar.extract.datasets.something_else import SomethingElse
from ifcar.extract.tuned import read_tuned
from ifcar.heads.catalog import HEADS
from ifcar.pipelines.configs import to_plain
from ifcar.pipelines.ensemble import ensemble
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.finetune.bf16 import has_right_gradients
from ifcar.pipelines.finetune.data import load_training, stack_views
from ifcar.pipelines.finetune.distributed import Group
from ifcar.pipelines.finetune.loop import train_step
from ifcar.pipelines.finetune.run import FinetuneResult, finetune, make_plan, make_trainer
from ifcar.pipelines.finetune.setting import open_setting
from ifcar.pipelines.finetune.start import i3d_config, joint_config
from ifcar.pipelines.finetune.trainer import LiveTrainer
from ifcar.pipelines.fit import fit
from ifcar.pipelines.predict import predict
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.config import RunConfig, run_name
from ifcar.pipelines.runs.finished import open_run
from ifcar.pipelines.runs.live import LivePlan
from ifcar.pipelines.runs.questions import EvaluateConfig, PredictConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.runs.weights import save_tensors
from ifcar.pipelines.training.checkpoint import below, read_checkpoint
from ifcar.pipelines.training.together import FitResult

pytestmark = pytest.mark.slow
ALONE = Group(number=0, size=1, device=torch.device("cpu"))
BRIEF = ScheduleConfig(kind="stretched", epochs=8, batch_size=8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "d", num_clips=16)


@pytest.fixture(scope="module")
def tuned(root: Path) -> FinetuneResult:
    return finetune(small_i3d(root, epochs=3), Silent(), out=root.parent / "tuned", workers=1)


@pytest.fixture(scope="module")
def cache(tuned: FinetuneResult) -> Path:
    """The cache that the fine-tuned backbone makes."""
    return extract(replace(tuned.extraction, out=tuned.run.path.parent / "tuned.zarr", workers=0), Silent()).cache


@pytest.fixture(scope="module")
def head(cache: Path) -> FitResult:
    config = make_run_config("sfi", cache, preset="small", aux_weight=1.0, schedule=BRIEF)
    return fit(config, Silent(), out=cache.parent / "head")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("runs", "caches"):
        monkeypatch.setenv(f"IFCAR_{kind.upper()}", str(tmp_path / kind))


def trainer_of(config: RunConfig) -> LiveTrainer:
    return make_trainer(open_setting(config, ALONE, Silent()), ALONE, 0)


def gradients(trainer: LiveTrainer) -> torch.Tensor:
    """Return the gradient of the first step, all parameters in a row."""
    (step_batch,) = trainer.sampler.batches(0, 1)
    train_step(trainer, step_batch, load_training(trainer.views, trainer.sampler, 0, 1, 0))
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])


def test_fine_tuned_backbone_makes_the_cache_that_the_run_names(
    tuned: FinetuneResult, cache: Path, root: Path, tmp_path: Path
) -> None:
    """Fingerprint, logits, late fusion, a head from the cache and `predict` all take the fine-tuned run."""
    config, reader = tuned.run.config, open_cache(cache)
    assert isinstance(config, RunConfig) and reader.fingerprint == config.fingerprint
    assert reader.identity["backbone"]["weights"] == sha256_file(tuned.backbone)
    assert (reader.spec.channels, reader.identity["backbone"]["reduction"]) == (16, 16)
    assert evaluate(tuned.run.path, EvaluateConfig(cache=cache)).agrees
    schedule = ScheduleConfig(kind="stretched", epochs=8, batch_size=8, held_out=0.0)
    beside = fit(make_run_config("sfi", cache, preset="small", schedule=schedule), Silent(), out=tmp_path / "sfi")
    assert [m.split for m in ensemble([tuned.run.path, beside.run.path]).run.metrics] == ["train", "test"]
    clip = next(c for c in tuned.run.predictions("test").clip_ids)
    said = predict(
        tuned.run.path,
        root / "frames" / clip,
        Silent(),
        PredictConfig(boxes=root / "annotations.json"),  # the run's folder holds the weights
    )
    stored = tuned.run.predictions("test").logits[0]
    np.testing.assert_allclose(said.answers[0].logits[0], stored, atol=1e-4)


def test_weights_of_a_fine_tuned_run_are_found_and_never_guessed(
    tuned: FinetuneResult, head: FitResult, root: Path, tmp_path: Path
) -> None:
    """A head of its cache finds them in the run beside it; where they are nowhere, nothing is fetched or advised."""
    video = root / "frames" / next(iter(head.run.predictions("test").clip_ids))
    options = PredictConfig(boxes=root / "annotations.json", device="cpu")
    said = predict(head.run.path, video, Silent(), options)
    np.testing.assert_allclose(said.answers[0].logits[0], head.run.predictions("test").logits[0], atol=1e-3)
    live = joint_config(head.run.path, data_root=root).live
    assert live is not None and live.data.weights == str(tuned.run.path.absolute() / "backbone.safetensors")
    alone = shutil.copytree(head.run.path, tmp_path / "alone" / "head")
    for ask in (lambda: predict(alone, video, Silent(), options), lambda: joint_config(alone, data_root=root)):
        with pytest.raises(
            InputError, match=r"^.*alone/head: trained on i3d_inception weights of SHA-256 .* --weights$"
        ):
            ask()


def test_fine_tuning_learns_what_a_random_backbone_does_not_tell(tuned: FinetuneResult) -> None:
    history = [json.loads(line) for line in (tuned.run.path / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert history[-1]["classification_loss"] < history[0]["classification_loss"]
    before = load_file(random_weights(tuned.run.path, "i3d_inception"))
    after = {key.removeprefix("inner."): value for key, value in load_file(tuned.backbone).items()}
    moved = [key for key, value in before.items() if not torch.equal(value, after[key])]
    assert "Conv3d_1a_7x7.conv3d.weight" in moved and not any(".bn." in key for key in moved)


def test_live_and_cached_logits_agree_within_float16_rounding(
    tuned: FinetuneResult, cache: Path, head: FitResult, root: Path
) -> None:
    config = joint_config(head.run.path, data_root=root, weights=str(tuned.backbone))
    trainer = trainer_of(config)
    trainer.model.eval()
    rows = list(range(16))
    batch = stack_views([trainer.plain_views[row] for row in rows], trainer.model.of_view, torch.device("cpu"))
    with torch.no_grad():
        outputs, _ = trainer.model(*batch)
    live = outputs.mean(1)
    reader, clips = open_cache(cache), head.run.predictions("test").clip_ids
    places = [reader.clip_ids.index(clip) for clip in clips]
    cached = head.run.predictions("test").logits
    np.testing.assert_allclose(live[places].numpy(), cached, atol=4e-3 * float(np.abs(cached).max()))
    assert not np.array_equal(live[places].numpy(), cached)


def test_joint_training_moves_head_and_open_stages_only(tuned: FinetuneResult, head: FitResult, root: Path) -> None:
    config = joint_config(
        head.run.path, data_root=root, weights=str(tuned.backbone), freeze_to="Mixed_4e", epochs=1, batch_size=4,
        lr=1e-2, head_lr=1e-3, warm_up=1,
    )  # fmt: skip
    result = finetune(config, Silent(), workers=0)
    before, after = load_file(tuned.backbone), load_file(result.backbone)
    moved = {key.split(".")[1] for key in after if not torch.equal(before[key], after[key])}
    assert moved == {"Mixed_4f", "weight", "bias"}  # the last stage and the reduction
    heads = [load_file(run / "model.safetensors") for run in (head.run.path, result.run.path)]
    assert any(not torch.equal(heads[0][key], heads[1][key]) for key in heads[0])
    assert result.run.config.head == "sfi" and result.run.config.fingerprint != head.run.config.fingerprint
    assert read_tuned(str(result.backbone)) is not None


@pytest.mark.parametrize("changes", [{"micro_batch": 3}, {"recompute": True}], ids=["micro-batches", "recompute"])
def test_saving_memory_leaves_the_gradient_as_it_is(root: Path, changes: dict[str, Any]) -> None:
    """A batch of eight with dropout, in three micro-batches, or with activations computed again."""
    whole = gradients(trainer_of(small_i3d(root, batch_size=8)))
    spared = gradients(trainer_of(small_i3d(root, batch_size=8, **changes)))
    assert float((whole - spared).norm() / whole.norm()) < 1e-5


def test_bf16_gradient_points_the_same_way(root: Path) -> None:
    whole = gradients(trainer_of(small_i3d(root)))
    if not has_right_gradients(ALONE.device):
        with pytest.raises(InputError, match="wrong gradients of bfloat16 convolutions on this processor"):
            trainer_of(small_i3d(root, precision="bf16"))
        pytest.skip("torch gives wrong gradients of bfloat16 convolutions on this processor")
    half = gradients(trainer_of(small_i3d(root, precision="bf16")))
    assert 0.98 < float(torch.nn.functional.cosine_similarity(whole, half, dim=0)) < 1
    clipped = gradients(trainer_of(small_i3d(root, clip_gradient=0.01)))
    assert float(clipped.norm()) == pytest.approx(0.01, rel=1e-3) and float(whole.norm()) > 0.01


def test_kept_statistics_stay_and_trained_ones_move(root: Path) -> None:
    for batch_norm, stays in (("frozen", True), ("train", False)):
        trainer = trainer_of(small_i3d(root, batch_norm=batch_norm))
        before = {k: v.clone() for k, v in trainer.model.state_dict().items() if "running_mean" in k}
        gradients(trainer)
        after = trainer.model.state_dict()
        assert all(torch.equal(v, after[k]) for k, v in before.items() if "Conv3d_1a" in k) == stays


def call_momentum_as_earlier_versions_did(folder: Path) -> None:
    tensors, state = read_checkpoint(folder)
    momentum = below(tensors, "optimizer/")
    assert momentum and all(key.endswith("/momentum_buffer") for key in momentum)
    for key in momentum:
        tensors[f"momentum/{key.partition('/')[0]}"] = tensors.pop(f"optimizer/{key}")
    save_tensors(folder / "checkpoint.safetensors", tensors, {"state": json.dumps(state)})


def test_killed_run_goes_on_to_the_same_bits(root: Path, tmp_path: Path) -> None:
    """SIGKILL after the first checkpoint, then the command line's own --resume; held-out part and dropout included."""
    options = {"epochs": 2, "held_out": 0.25}
    whole = finetune(small_i3d(root, **options), Silent(), out=tmp_path / "whole", workers=0)
    stopped = tmp_path / "stopped"
    command = ["finetune", "i3d", "--dataset", "something-else"]
    command += ["--data-root", str(root), "--backbone", "i3d_inception", "--crop", "32", "--lr", "1e-2"]
    command += ["--weights", random_weights(root, "i3d_inception"), "--reduction", "16", "--batch-size", "4"]
    command += ["--epochs", "2", "--held-out", "0.25", "--workers", "0", "--out", str(stopped)]
    process = Command(command, tmp_path)
    while not (stopped / "checkpoint.safetensors").exists() and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    call_momentum_as_earlier_versions_did(stopped)
    with pytest.raises(MissingDataError, match=f"go on with `ifcar finetune i3d --resume --out {stopped}`"):
        open_run(stopped)
    code, said, error = call(["finetune", "i3d", "--resume", "--out", stopped, "--workers", "0"], tmp_path)
    assert code == 0, error
    assert "Next: `ifcar extract" in said
    for name in ("backbone.safetensors", "model.safetensors"):
        assert (whole.run.path / name).read_bytes() == (stopped / name).read_bytes(), name
    assert (whole.run.path / "last").exists() == (stopped / "last").exists()
    assert not (stopped / "checkpoint.safetensors").exists()


def test_best_weights_are_chosen_on_the_held_out_part_and_the_last_are_kept(root: Path, tmp_path: Path) -> None:
    result = finetune(small_i3d(root, epochs=2, held_out=0.1, lr=0.3), Silent(), out=tmp_path / "r", workers=0)
    history = [json.loads(line) for line in (tmp_path / "r" / "history.jsonl").read_text().splitlines()]
    ranked = sorted(history, key=lambda h: (h["held_out_top1"], -h["held_out_loss"], -h["step"]))
    assert result.best_step == ranked[-1]["step"]
    held_out = result.run.metric("held_out")
    assert held_out is not None and held_out.top1 == pytest.approx(ranked[-1]["held_out_top1"])
    assert (tmp_path / "r" / "last" / "backbone.safetensors").exists() == (result.best_step < result.plan.num_steps)
    (note,) = result.run.data().notes
    assert note.startswith(f"held out: {held_out.n} of {result.run.data().num_train} training clips")


def test_joint_training_without_a_single_box_is_refused(head: FitResult, tuned: FinetuneResult, tmp_path: Path) -> None:
    boxless = write_dataset(tmp_path / "d", num_clips=4)
    content = json.loads((boxless / "annotations.json").read_text())
    records = {clip: [{**record, "labels": []} for record in own] for clip, own in content.items()}
    (boxless / "annotations.json").write_text(json.dumps(records))
    config = joint_config(head.run.path, data_root=boxless, weights=str(tuned.backbone))
    with pytest.raises(InputError, match="none of the 2 training clips has a box"):
        finetune(config, Silent(), out=tmp_path / "r", workers=0)


def test_protocol_is_the_one_given_or_the_only_one(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d", num_clips=8)
    (root / "splits" / "compositional").rename(root / "splits" / "mine")
    with pytest.raises(InputError, match="no protocol 'mien', did you mean 'mine'"):
        trainer_of(small_i3d(root, protocol="mien"))
    with pytest.raises(InputError, match="no protocol 'compositional'\\. Known: mine"):
        trainer_of(small_i3d(root, protocol="compositional"))
    setting = open_setting(small_i3d(root), ALONE, Silent())
    assert setting.config.protocol == setting.protocol.name == "mine"
    assert run_name(setting.config) == "finetune-i3d-mine-seed0"


def test_epochs_leave_no_file_open(root: Path) -> None:
    """Forty passes of two decoding workers: the open descriptors of all three processes stay as many."""
    trainer = trainer_of(small_i3d(root, num_steps=80))
    per_epoch, counts = trainer.plan.steps_per_epoch, []
    views = load_training(trainer.views, trainer.sampler, 0, 40 * per_epoch, 2)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    for epoch in range(40):
        for _ in range(len(trainer.examples)):
            next(views)
        if epoch in (4, 39):
            open_files = [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in children.read_text().split()]
            counts.append(sum(open_files) + len(list(Path("/proc/self/fd").iterdir())))
    assert counts[1] <= counts[0] + 16  # what is decoded ahead travels as open files


def test_training_views_differ_by_epoch_and_seed_and_show_the_boxes_place(root: Path) -> None:
    views, other = (trainer_of(small_i3d(root, cropping="multi-scale", seed=seed)).views for seed in (0, 1))
    shown = [views[1, 0], views[1, 0], views[1, 1], other[1, 0]]
    first, again, later, elsewhere = (item.inputs for item in shown if item.inputs is not None)
    assert torch.equal(first, again) and not torch.equal(first, later) and not torch.equal(first, elsewhere)
    for item in shown:
        view = item.view
        assert view is not None and item.inputs is not None and view.augmented and not view.flip
        for t in range(8):
            x, y, w, h = view.boxes[t, 1]  # slot 0 is the hand, slot 1 the red thing
            if min(w, h) > 0.2:
                red, _, blue = item.inputs[t, int(32 * y), int(32 * x)].tolist()
                assert red > blue + 60


def test_presets_hold_the_papers_numbers() -> None:
    paper = i3d_config("something-else")
    wang = i3d_config("something-else", preset="wang-gupta")
    plan = make_plan(paper, 54_919, 1)
    assert (plan.lr, plan.batch_size, plan.num_steps) == (1e-2, 72, 30 * 763)
    assert plan.milestones == tuple(5 * k * 763 for k in range(1, 6))
    assert [round(plan.factor_at(step) * 1e6) for step in (0, 3814, 3815, 22889)] == [10**6, 10**6, 10**5, 10]
    plan = make_plan(wang, 54_919, 4)
    assert (plan.lr, plan.batch_size, plan.num_steps, plan.milestones) == (0.00125, 8, 100_000, (90_000,))
    assert wang.live is not None and wang.live.batch_norm == "frozen" and wang.live.data.frames == 32
    assert wang.options["dropout"] == 0.3 and plan.weight_decay == 1e-4
    seen = wang.live.data
    assert (seen.sampling_fps, seen.framing, seen.cropping, seen.views) == (6.0, "three-crops", "scale-jitter", 2 * 3)
    charades = i3d_config("charades", preset="wang-gupta").live
    assert charades is not None and charades.data.views == 10 * 3
    own = i3d_config("charades", preset="wang-gupta", sampling="segments", framing="center").live
    assert own is not None and (own.data.sampling_fps, own.data.views) == (None, 1)
    rising = LivePlan(num_steps=9, steps_per_epoch=3, batch_size=1, lr=1.0, head_lr=1.0, warm_up=3)
    assert [rising.factor_at(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_bad_input_is_one_line(
    tuned: FinetuneResult, cache: Path, head: FitResult, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = write_dataset(tmp_path / "boxes", pixels=False)
    layout_cache = tmp_path / "none.zarr"
    extract(ExtractConfig(dataset="something-else", data_root=boxes, out=layout_cache, backbone="none"), Silent())
    layout = fit(make_run_config("sfi", layout_cache, preset="small", streams="layout", schedule=BRIEF), Silent())
    weights = {"data_root": root, "weights": str(tuned.backbone)}
    other = finetune(small_i3d(root, reduction=8, num_steps=1), Silent(), workers=0)

    def joint(**changes: Any) -> RunConfig:
        return joint_config(head.run.path, **{**weights, **changes})

    def start(config: RunConfig) -> None:
        open_setting(config, ALONE, Silent())

    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda: start(i3d_config("something-else", **weights)), InputError, "i3d_inception at spatial stride 16"),
        (lambda: start(small_i3d(root, weights=str(tuned.backbone), reduction=8)), InputError, "16 channels, not 8"),
        (lambda: start(joint(weights=str(other.backbone))), CacheMismatchError, "name its own with --weights"),
        (lambda: joint(frames=16), InputError, "trained on T = 8, not 16"),
        (lambda: joint(instances=6), InputError, "trained on N = 4, not 6"),
        (lambda: start(wrong_steps(joint())), CacheMismatchError, "C = 16, but .* C = 8"),
        (lambda: start(small_i3d(boxes)), MissingDataError, "no pixels"),
        (lambda: small_i3d(root, backbone="none"), InputError, "nothing to fine-tune"),
        (lambda: joint_config(layout.run.path), InputError, "boxes alone"),
        (lambda: joint_config(trained_on(boxes={"sha256": "ab"})), InputError, "name the file with --boxes"),
        (lambda: start(small_i3d(root, freeze_to="res3")), InputError, "no stage 'res3'"),
        (lambda: start(small_i3d(root, freeze_to="reduction")), InputError, "leaves nothing"),
        (lambda: small_i3d(root, flip=True), InputError, "left from right"),
        (lambda: start(make_run_config("sfi", cache, schedule=BRIEF)), InputError, "fit-head --config"),
        (lambda: small_i3d(root, batch_norm="train", recompute=True), InputError, "statistics twice"),
        (lambda: small_i3d(root, num_steps=3, epochs=2), InputError, "exclude each other"),
        (lambda: fit(tuned.run.config, Silent()), InputError, "ifcar finetune"),  # type: ignore[arg-type]
        (lambda: evaluate(shutil.copytree(tuned.run.path, tmp_path / "alone")), InputError, "make it with"),
    ]

    def trained_on(**identity: dict[str, str]) -> Path:
        """A copy of the head's run that says this of its data."""
        copy = tmp_path / ("run-" + "-".join(identity))
        shutil.copytree(head.run.path, copy)
        data = json.loads((copy / "data.json").read_text())
        for key, values in identity.items():
            data["identity"].setdefault(key, {}).update(values)
        (copy / "data.json").write_text(json.dumps(data))
        return copy

    def wrong_steps(config: RunConfig) -> RunConfig:
        """A config whose weights have another reduction than the head's features, as if their identity were right."""
        assert config.live is not None
        data = replace(config.live.data, weights=str(other.backbone))
        return replace(config, live=replace(config.live, data=data, weights_identity="", reduction=None))

    for make, kind, text in cases:
        with pytest.raises(kind, match=text) as caught:
            make()
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(SomethingElse, "mirror_safe", True)
    assert small_i3d(root, flip=True).live.data.flip  # type: ignore[union-attr]


def test_extract_refuses_a_fine_tuned_file_of_another_network(tuned: FinetuneResult, tmp_path: Path) -> None:
    for changes in ({"backbone": "i3d_r50"}, {"spatial_stride": 32}):
        with pytest.raises(InputError, match="give --backbone i3d_inception --spatial-stride 16"):
            extract(replace(tuned.extraction, out=tmp_path / "x.zarr", **changes), Silent())  # type: ignore[arg-type]


def test_config_file_of_a_fine_tuning_repeats_it(tuned: FinetuneResult, tmp_path: Path) -> None:
    config = tuned.run.config
    assert isinstance(config, RunConfig)
    again = finetune(config, Silent(), out=tmp_path / "again", workers=0)
    assert again.backbone.read_bytes() == tuned.backbone.read_bytes()
    assert {**to_plain(again.run.config), "cache": ""} == {**to_plain(config), "cache": ""}


@pytest.mark.parametrize("name", ["i3d", "base", "strg", "stin"])
def test_every_kind_of_head_trains_on_live_features(root: Path, name: str) -> None:
    config = replace(small_i3d(root), head=name, options=to_plain(HEADS.get(name).presets["small"]))
    gradient = gradients(trainer_of(config))
    assert gradient.isfinite().all() and float(gradient.norm()) > 0


def test_both_maps_of_an_inflated_backbone_train_with_a_head_that_reads_both(root: Path) -> None:
    options = replace(HEADS.get("orn").presets["small"], features=("visual",))
    live = small_i3d(root, backbone="inflated-resnet18", weights="random:0", reduction=0)
    trainer = trainer_of(replace(live, head="orn", options=to_plain(options)))
    assert gradients(trainer).isfinite().all()
    weights = dict(trainer.model.backbone.named_parameters())
    for name in ("conv1", "conv1_time", "layer4.1.conv2_time", "layer4_instances.1.conv2_time"):
        found = weights[f"{name}.weight"].grad
        assert found is not None and float(found.norm()) > 0, name
