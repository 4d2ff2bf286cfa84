"""How long a training will take on this machine, told before it from a few of its steps, timed and thrown away."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ifcar.heads.catalog import HEADS
from ifcar.pipelines.configs import to_plain
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.scoring.scores import predict
from ifcar.pipelines.training.loop import draw_epoch, train_step
from ifcar.pipelines.training.trainer import Trainer, TrainState

LEAST_STEPS = 100  # of a shorter training nothing is timed: it ends about as soon
TIMED_STEPS = 3
SAID_FROM_SEC = 10.0
SMALL = "small"


def seconds_of(trainer: Trainer, num_steps: int, num_rounds: float) -> float:
    """Return how long steps take, and the evaluations of the held-out part where there is one.

    The trainer's weights and states move: give one that is made for this.

    Args:
        trainer: of a phase, at its start.
        num_steps: how many steps.
        num_rounds: how many evaluations.
    """
    plan, state = trainer.members[0].plan, TrainState(members=[member.state for member in trainer.members])
    order, rows = draw_epoch(trainer, 0)
    chunk = np.array_split(np.arange(len(trainer.examples)), plan.steps_per_epoch)[0]

    trainer.batches.expect([rows[:, chunk]] * (1 + TIMED_STEPS))

    def step() -> None:
        train_step(trainer, trainer.stack, state, order[:, chunk], rows[:, chunk])

    step()  # the first one builds what the others use
    seconds = num_steps * statistics.median(_timed(step, trainer) for _ in range(TIMED_STEPS))
    held_out = trainer.held_out
    if held_out is not None and num_rounds:
        seconds += num_rounds * _timed(lambda: predict(trainer.stack, trainer.batches, held_out), trainer)
    return seconds


def small_config(config: RunConfig) -> RunConfig | None:
    """Return a run's config with its head's narrow preset and its own streams; None where it is that, or has none."""
    presets: Mapping[str, Any] = HEADS.get(config.head).presets
    if config.preset == SMALL or SMALL not in presets or config.fine_tune is not None:
        return None
    options = to_plain(presets[SMALL])
    if "joint" in options:
        options["joint"]["streams"] = config.options["joint"]["streams"]
    return replace(config, preset=SMALL, options=options)


def time_line(config: RunConfig, device: torch.device, seconds: float, small: float | None, *, refit: bool) -> str:
    """Return the line that is said before a training.

    Args:
        config: what is trained.
        device: on which.
        seconds: how long it takes.
        small: how long the same takes with the narrow preset; None where that is not known.
        refit: whether the second training is counted.
    """
    where = "CPU" if device.type == "cpu" else "GPU"
    line = f"preset {config.preset} on this {where}: about {in_words(seconds)}{' with the refit' if refit else ''}"
    return line if small is None else f"{line}; --preset {SMALL}: about {in_words(small)}"


def in_words(seconds: float) -> str:
    """Return a length of time in the unit that suits it, to two digits at most."""
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            count = seconds / size
            return f"{count:.1f} {unit}" if count < 9.95 and unit != "min" else f"{count:.0f} {unit}"
    return f"{max(1.0, seconds):.0f} s"


def _timed(work: Callable[[], object], trainer: Trainer) -> float:
    started = time.perf_counter()
    work()
    if trainer.batches.device.type == "cuda":
        torch.cuda.synchronize(trainer.batches.device)
    return time.perf_counter() - started
