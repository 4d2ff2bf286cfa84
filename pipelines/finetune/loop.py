"""The loop that trains a backbone with its head.

It is another than that of cached training, whose losses, records and choice of weights it shares: its batches come from
decoding processes in an order fixed ahead, fall into micro-batches and among processes, and a checkpoint may lie within
an epoch.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from ifcar.extract.decoded_views import Decoded
from ifcar.heads.contract import HeadOutput, Task
from ifcar.pipelines.finetune.data import StepBatch, load_training, stack_views
from ifcar.pipelines.finetune.score import score_live
from ifcar.pipelines.finetune.trainer import LiveState, LiveTrainer
from ifcar.pipelines.scoring.scores import measure
from ifcar.pipelines.stacks.noise import draw_noise
from ifcar.pipelines.stacks.objectives import Labels, losses_of
from ifcar.pipelines.training.trainer import NonFiniteError, not_finite

CHECKPOINT_STEPS = 500


def train(
    trainer: LiveTrainer, state: LiveState, on_step: Callable[[int], None], on_checkpoint: Callable[[], None]
) -> None:
    """Train from `state.step` to the end, evaluating the held-out part after every epoch.

    The order of clips depends on (seed, epoch), a view on (seed, epoch, clip), dropout on (seed, step), and nothing
    else is random: a run that goes on from a checkpoint sees what it would have seen.

    Args:
        trainer: what is trained.
        state: where it stands; moves.
        on_step: told how many examples a step had.
        on_checkpoint: called when the state should be kept: after an epoch, and after every 500 steps.
    """
    plan, started = trainer.plan, time.perf_counter()
    sampler, first, last = trainer.sampler, state.step, plan.num_steps
    views = load_training(trainer.views, sampler, first, last, trainer.num_workers)
    for step_batch in sampler.batches(first, last):
        losses = train_step(trainer, step_batch, views)
        for name, loss in (losses | {"n": 1.0}).items():
            state.sums[name] = state.sums.get(name, 0.0) + loss * len(step_batch.places)
        state.step += 1
        on_step(len(step_batch.places))
        ended = state.step == last or state.step % plan.steps_per_epoch == 0
        if ended:
            finish_epoch(trainer, state, time.perf_counter() - started)
        if ended or state.step % CHECKPOINT_STEPS == 0:
            on_checkpoint()


def train_step(trainer: LiveTrainer, step_batch: StepBatch, views: Iterator[Decoded]) -> dict[str, float]:
    """Do one optimiser step.

    The backbone sees a clip once, however many of its instances are asked about. Micro-batches and processes add up to
    the gradient of the mean loss over the whole batch: exactly, where norms keep their statistics and losses are means
    over examples.

    Args:
        trainer: what is trained.
        step_batch: the step's clips.
        views: gives this process's views in the order of the step.

    Returns:
        The losses by name, means over the whole batch.

    Raises:
        NonFiniteError: a loss or the gradient is not finite; the weights are as they were.
        InputError: a clip cannot be decoded.
    """
    trainer.model.train()
    trainer.optimizer.zero_grad()
    noise = draw_noise(
        trainer.model.head, [trainer.seed], "fit", step_batch.step, len(step_batch.places), trainer.group.device
    )
    aux_weights = {name: torch.tensor([weight]) for name, weight in trainer.aux_weights.items()}
    sums: dict[str, torch.Tensor] = {}
    parts = np.array_split(step_batch.mine, math.ceil(len(step_batch.mine) / trainer.micro_batch))
    for number, part in enumerate(parts):
        inputs, of_view = stack_views([next(views) for _ in part], trainer.model.of_view, trainer.group.device)
        begin, end = np.searchsorted(step_batch.views, [part[0], part[-1] + 1])
        places, of = step_batch.places[begin:end], torch.from_numpy(step_batch.views[begin:end] - part[0])
        targets = torch.from_numpy(trainer.examples.targets[places]).to(trainer.group.device)
        trainer.model.set_noise(noise, int(begin), int(end))
        with _gradients_stay(trainer) if number < len(parts) - 1 else contextlib.nullcontext():
            outputs, extra = trainer.network(inputs, of_view, trainer.examples.order_of(places), of)
            labels = {"": Labels(targets=targets[None], kind=trainer.examples.kind)}
            alone = {name: loss[None] for name, loss in extra.items()}
            out = HeadOutput(logits=outputs.mean(-2)[None], outputs=outputs[None], losses=alone)
            losses = losses_of(out, (Task(),), labels, aux_weights, trainer.label_smoothing)
            share = len(places) / len(step_batch.places)
            # DistributedDataParallel divides by the number of processes.
            (torch.stack(list(losses.values())).sum() * share * trainer.group.size).backward()  # type: ignore[no-untyped-call]
        sums = {name: sums.get(name, 0) + loss.detach().double().sum() * share for name, loss in losses.items()}
    totals = trainer.group.sum(torch.stack(list(sums.values()))).tolist()
    found = dict(zip(sums, totals, strict=True))
    _move(trainer, step_batch, found)
    return found


def _gradients_stay(trainer: LiveTrainer) -> contextlib.AbstractContextManager[None]:
    """Return a context in which gradients are added up in this process only."""
    network = trainer.network
    return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()


def _move(trainer: LiveTrainer, step_batch: StepBatch, losses: dict[str, float]) -> None:
    """Clip the gradient and step, unless something is not finite."""
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, trainer.clip_gradient or math.inf))
    if not math.isfinite(norm + sum(losses.values())):
        clips = trainer.examples.names[step_batch.places].tolist()
        raise NonFiniteError(not_finite(step_batch.step, losses, clips, "set --clip-gradient or --warm-up"))
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["rate"] * trainer.plan.factor_at(step_batch.step)
    trainer.optimizer.step()


def finish_epoch(trainer: LiveTrainer, state: LiveState, seconds: float) -> None:
    """Append to the history; evaluate the held-out part and keep the best weights where there is one."""
    plan, n = trainer.plan, state.sums.pop("n")
    record = {
        "phase": "fit",
        "epoch": math.ceil(state.step / plan.steps_per_epoch),
        "step": state.step,
        "lr": plan.lr * plan.factor_at(state.step - 1),
        **{f"{name}_loss": value / n for name, value in state.sums.items()},
        "seconds": round(seconds, 3),
    }
    state.sums = {}
    metrics = None
    if trainer.held_out is not None:
        metrics = measure(score_live(trainer, trainer.held_out), seed=trainer.seed, started=time.perf_counter())
    state.end_round(record, metrics, trainer.weights)
