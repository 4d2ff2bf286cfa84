"""The optimiser steps of a fleet of runs, one a call, as `ifcar.pipelines.training.loop.train` takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from random_cache import PROTOCOL

from ifcar.cache.arrays import FEATURES
from ifcar.cache.open import open_cache
from ifcar.cache.schema import Split
from ifcar.pipelines.feed.batches import BatchReader
from ifcar.pipelines.feed.examples import read_examples
from ifcar.pipelines.feed.memory import Memory
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.heads import build_head
from ifcar.pipelines.runs.resolve import head_arrays
from ifcar.pipelines.runs.schedule import Plan, make_plan
from ifcar.pipelines.stacks.stack import stack_heads
from ifcar.pipelines.training.loop import draw_epoch, train_step
from ifcar.pipelines.training.trainer import FleetRun, RunState, Trainer, TrainState, make_optimizer


def arrays_of(config: RunConfig) -> tuple[str, ...]:
    """Return the names of the arrays that a run's head reads."""
    return head_arrays(config)


def plan_of(config: RunConfig, num_train: int) -> Plan:
    """Return a run's schedule for this many training clips."""
    appearance = any(array.name in arrays_of(config) for array in FEATURES)
    return make_plan(config.schedule, num_train, reads_appearance=appearance)


def open_rows(arrays: tuple[str, ...], cache: Path, device: torch.device, memory: Memory) -> BatchReader:
    """Open these arrays of the training clips of a cache of random rows."""
    reader = open_cache(cache)
    examples = read_examples(reader, reader.protocol(PROTOCOL), Split.TRAIN)
    return BatchReader(reader, arrays, examples.rows[:, 0], device, memory)


class FleetSteps:
    """Steps of runs that train together; calling it takes the next one.

    Args:
        configs: the runs, of one fleet.
        cache: of random rows.
        device: where they train.
        batches: the rows, when they are open already; default: opened here, where they fit.
    """

    def __init__(
        self, configs: list[RunConfig], cache: Path, device: torch.device, batches: BatchReader | None = None
    ) -> None:
        batches = batches or open_rows(arrays_of(configs[0]), cache, device, "auto")
        reader = batches.reader
        protocol = reader.protocol(PROTOCOL)
        examples = read_examples(reader, protocol, Split.TRAIN)
        heads = [build_head(config, reader.spec, len(protocol.labels.classes)) for config in configs]
        self.plan = plan_of(configs[0], len(examples))
        members = [
            FleetRun(
                plan=self.plan,
                stop_step=10**9,
                aux_weights=config.aux_weights,
                seed=config.seed,
                state=RunState(),
            )
            for config in configs
        ]
        stack = stack_heads(heads, device)
        self.trainer = Trainer(
            stack=stack,
            members=members,
            optimizer=make_optimizer(stack, members),
            batches=batches,
            examples=examples,
            held_out=None,
            label_smoothing=0.0,
            precision=configs[0].schedule.precision,
            classifier_only=False,
            order=batches.order,
        )
        self.state = TrainState(members=[member.state for member in members], order=batches.order)
        self._chunks: list[NDArray[np.int64]] = []

    def __call__(self) -> None:
        """Take a step; the first of an epoch draws its order and announces its rows."""
        step = self.state.step % self.plan.steps_per_epoch
        if not step:
            self._order, self._rows = draw_epoch(self.trainer, self.state.step // self.plan.steps_per_epoch)
            self._chunks = np.array_split(np.arange(self._order.shape[1]), self.plan.steps_per_epoch)
            self.trainer.batches.expect(self._rows[:, chunk] for chunk in self._chunks)
        chunk = self._chunks[step]
        train_step(self.trainer, self.trainer.stack, self.state, self._order[:, chunk], self._rows[:, chunk])
        self.state.step += 1
        failure = next((member.state.failure for member in self.trainer.members if member.state.failure), None)
        if failure is not None:
            raise ArithmeticError(failure)
