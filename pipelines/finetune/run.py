"""`ifcar finetune`: train backbone and head from videos, and leave a run and a backbone file."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ifcar.cache.lock import locked
from ifcar.cache.schema import Split
from ifcar.errors import InputError
from ifcar.extract.backbones.downloads import sha256_file
from ifcar.extract.decoded_views import past_end_lines
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.feed.held_out import hold_out
from ifcar.pipelines.finetune.bf16 import has_right_gradients
from ifcar.pipelines.finetune.checkpoint import load_live, save_live
from ifcar.pipelines.finetune.data import BatchSampler, TrainingViews, live_examples
from ifcar.pipelines.finetune.distributed import Group, open_group
from ifcar.pipelines.finetune.loop import train
from ifcar.pipelines.finetune.model import make_optimizer
from ifcar.pipelines.finetune.score import score_live
from ifcar.pipelines.finetune.setting import Setting, open_setting
from ifcar.pipelines.finetune.trainer import LiveState, LiveTrainer
from ifcar.pipelines.folders import folder
from ifcar.pipelines.progress import Progress, Silent
from ifcar.pipelines.runs.config import RunConfig, run_name
from ifcar.pipelines.runs.data import write_run_data
from ifcar.pipelines.runs.finished import (
    Run,
    check_folder,
    claim_folder,
    fresh_folder,
    open_run,
    write_config,
    write_history,
)
from ifcar.pipelines.runs.live import LivePlan
from ifcar.pipelines.runs.own_weights import BACKBONE
from ifcar.pipelines.runs.schedule import WEIGHT_DECAY
from ifcar.pipelines.runs.weights import save_tensors
from ifcar.pipelines.scoring.scores import round_note
from ifcar.pipelines.training.checkpoint import NAME as CHECKPOINT
from ifcar.pipelines.training.events import write_outcome

MODEL = "model.safetensors"
LAST = "last"


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneResult:
    """A finished fine-tuning.

    Args:
        run: the run.
        backbone: the trained backbone's file.
        plan: the steps.
        best_step: the step whose weights these are, when a held-out part chose it.
        extraction: what `ifcar extract` takes to make the run's cache.
    """

    run: Run
    backbone: Path
    plan: LivePlan
    best_step: int | None
    extraction: ExtractConfig


def finetune(
    config: RunConfig,
    progress: Progress,
    *,
    out: Path | None = None,
    resume: bool = False,
    device: str | None = None,
    workers: int | None = None,
) -> FinetuneResult:
    """Train the backbone with a head on it, evaluate both, and write the run folder.

    Under torchrun the processes share every batch, see `ifcar.pipelines.finetune.distributed`.

    Args:
        config: from `i3d_config` or `joint_config`, or a run's config file.
        progress: told about every step.
        out: run folder; default: a fresh one named after the config.
        resume: go on with a stopped run of the same config in `out`.
        device: default: cuda where there is one.
        workers: decoding processes of each training process; default: the cores but one, at most 8, shared out.

    Raises:
        InputError, MissingDataError, CacheMismatchError: config, files and folder do not go together.
        NonFiniteError: the loss or the gradient stopped being finite.
        LostProcessError: another process of the group ended.
        LockedError: another run writes to the folder.
    """
    started = time.perf_counter()
    with open_group(device) as group, contextlib.ExitStack() as held:
        progress = progress if group.is_first else Silent()
        if out is not None:
            group.decide(lambda: held.enter_context(_taken(out, resume=resume)))
        setting = open_setting(config, group, progress)
        path = out or group.decide(lambda: fresh_folder(run_name(setting.config)))
        if out is None:
            group.decide(lambda: held.enter_context(_taken(path, resume=resume)))
        group.decide(lambda: claim_folder(path, setting.config, unknown=("fingerprint",)))
        trainer = make_trainer(setting, group, _num_workers(workers, group))
        state = load_live(path, trainer)
        _train(trainer, state, path, group, progress)
        chosen = state.best_weights or trainer.weights()
        if group.is_first and state.best_weights and state.best_step < trainer.plan.num_steps:
            _write_weights(path / LAST, setting, trainer.weights())
        trainer.model.load_state_dict(chosen)
        _finish(path, setting, trainer, state, started)
        for line in past_end_lines(trainer.noted):
            progress.say(line)
        return FinetuneResult(
            run=open_run(path),
            backbone=path / BACKBONE,
            plan=trainer.plan,
            best_step=state.best_step if state.best_weights else None,
            extraction=replace(setting.extraction, weights=str(path / BACKBONE), out=_cache_path(path)),
        )


def make_plan(config: RunConfig, num_clips: int, num_processes: int) -> LivePlan:
    """Resolve the steps of a run for `num_clips` training clips.

    Raises:
        InputError: a batch has fewer clips than there are processes.
    """
    schedule, live = config.schedule, config.live
    assert live is not None and schedule.batch_size is not None and schedule.lr is not None
    batch_size = min(schedule.batch_size, num_clips)
    steps_per_epoch = math.ceil(num_clips / batch_size)
    if num_clips // steps_per_epoch < num_processes:
        raise InputError(f"batch size {batch_size} leaves some of {num_processes} processes without a clip; raise it")
    num_steps = live.num_steps or (schedule.epochs or 1) * steps_per_epoch
    return LivePlan(
        num_steps=num_steps,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        lr=schedule.lr,
        head_lr=live.head_lr or schedule.lr,
        weight_decay=WEIGHT_DECAY if schedule.weight_decay is None else schedule.weight_decay,
        milestones=tuple(round(share * num_steps) for share in live.milestones),
        warm_up=live.warm_up,
    )


def make_trainer(setting: Setting, group: Group, num_workers: int) -> LiveTrainer:
    """Put together what the loop needs.

    Raises:
        InputError: the splits are empty, or the group cannot train this config.
    """
    config, live, source, model = setting.config, setting.live, setting.source, setting.model
    if group.size > 1 and live.batch_norm == "train":
        raise InputError("batch_norm train would give every process statistics of its own; use frozen with torchrun")
    if config.schedule.precision == "bf16" and not has_right_gradients(group.device):
        raise InputError(
            "precision bf16: torch gives wrong gradients of bfloat16 convolutions on this processor; take fp32, or "
            "another machine"
        )
    examples = live_examples(source, setting.protocol, Split.TRAIN, setting.policy.views)
    division = hold_out(examples, setting.protocol, config.schedule.held_out)
    examples = division.fitting
    model.head.learn_labels(examples.labels(len(setting.protocol.labels.classes)))
    by_clip = examples.by_clip()
    plan = make_plan(config, len(by_clip), group.size)
    network = model
    if group.size > 1:
        devices = [group.device] if group.device.type == "cuda" else None
        network = DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)  # type: ignore[assignment]
    plain_views = source.views(setting.policy, model.backbone.spec.reads)
    return LiveTrainer(
        model=model,
        spec=setting.spec,
        network=network,
        optimizer=make_optimizer(model, plan.lr, plan.head_lr, plan.weight_decay),
        plan=plan,
        sampler=BatchSampler(
            clips=examples.clips,
            by_clip=by_clip,
            steps_per_epoch=plan.steps_per_epoch,
            seed=config.seed,
            process=group.number,
            num_processes=group.size,
        ),
        views=TrainingViews(source, setting.training_policy(), model.backbone.spec.reads),
        plain_views=plain_views,
        examples=examples,
        held_out=division.held_out,
        notes=[*([division.note] if division.note else []), *model.head.remarks()],
        group=group,
        seed=config.seed,
        aux_weights=config.aux_weights,
        label_smoothing=config.schedule.label_smoothing,
        micro_batch=live.micro_batch or plan.batch_size,
        clip_gradient=live.clip_gradient,
        pool=live.pool,
        num_workers=num_workers,
        clip_ids=source.clip_ids(),
    )


def _train(trainer: LiveTrainer, state: LiveState, path: Path, group: Group, progress: Progress) -> None:
    """Run the loop, showing progress in clips and saving checkpoints in process 0."""
    plan = trainer.plan
    for line in trainer.notes:
        progress.say(line)
    left = plan.num_steps - state.step
    progress.start(path.name, round(left * len(trainer.examples) / plan.steps_per_epoch))

    def on_checkpoint() -> None:
        if group.is_first:
            save_live(path, trainer, state)
            write_history(path, state.history)

    def note() -> str:
        return f"epoch {state.history[-1]['epoch']}, {round_note(state.history[-1])}" if state.history else ""

    train(trainer, state, lambda count: progress.advance(count, note=note()), on_checkpoint)
    progress.finish()


def _finish(path: Path, setting: Setting, trainer: LiveTrainer, state: LiveState, started: float) -> None:
    """Evaluate the model and write everything that a finished run holds, its metrics last."""
    views = setting.policy.views
    parts = [live_examples(setting.source, setting.protocol, split, views) for split in (Split.TRAIN, Split.TEST)]
    if trainer.held_out is not None:
        parts.append(trainer.held_out)
    predictions = [score_live(trainer, part) for part in parts]
    if trainer.group.is_first:
        _write_weights(path, setting, trainer.weights())
        data = setting.run_data(sha256_file(path / BACKBONE), trainer.notes)
        write_run_data(path, data)
        write_config(path, replace(setting.config, cache=_cache_path(path), fingerprint=setting.fingerprint(data)))
        write_outcome(path, state.history, predictions, seed=setting.config.seed, started=started)
        (path / CHECKPOINT).unlink(missing_ok=True)
    trainer.group.decide(lambda: None)  # the others read what process 0 wrote


def _write_weights(path: Path, setting: Setting, weights: dict[str, Tensor]) -> None:
    """Write the backbone's file and the head's."""
    path.mkdir(exist_ok=True)
    for prefix, name, metadata in (("backbone.", BACKBONE, setting.facts().metadata()), ("head.", MODEL, None)):
        part = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        save_tensors(path / name, part, metadata)


def _cache_path(path: Path) -> Path:
    return folder("caches") / f"{path.name}.zarr"


@contextlib.contextmanager
def _taken(path: Path, *, resume: bool) -> Iterator[None]:
    """Hold a run's folder, which must be new, or that of a stopped run to resume."""
    check_folder(path, resume=resume)
    with locked(path):
        yield


def _num_workers(workers: int | None, group: Group) -> int:
    if workers is not None and workers < 0:
        raise InputError(f"--workers is {workers}; expected at least 0")
    cores = os.cpu_count() or 1
    return max(1, min(8, cores - 1) // group.size) if workers is None else workers
