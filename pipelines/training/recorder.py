"""A step's kernels recorded once and launched together afterwards, where launching them one by one takes longer."""

from __future__ import annotations

import functools
import gc
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ifcar.pipelines.stacks.stack import Stack

logger = logging.getLogger(__name__)
MOST_FAILURES = 2  # to record a step, before no more is tried
Named = Mapping[str, Tensor]


class StepInputs(NamedTuple):
    """What changes from step to step, on the device unless said otherwise; m heads train on B clips each.

    Args:
        per_head: whether each head has clips of its own; the axis m is 1, or of arrays left out, where not.
        arrays: of the batch, (B, …) or (m, B, …).
        noise: of every layer that draws, (m, B, …).
        targets: by label space, (m or 1, B, …).
        teachers: logits by label space, (m or 1, B, S, K).
        aux_weights: of each of the heads' own losses, (m,).
    """

    per_head: bool
    arrays: Named
    noise: Named
    targets: Named
    teachers: Named
    aux_weights: Named

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every tensor with a name that no other has."""
        for field, group in zip(self._fields[1:], self[1:], strict=True):
            yield from ((f"{field}/{name}", value) for name, value in group.items())


class StepResult(NamedTuple):
    """What a step finds; the gradients themselves are left in the stack.

    Args:
        losses: by name, (m,) float64.
        norms: (m,) of the gradients.
        finite: (m,) bool, whether loss and gradient are.
    """

    losses: dict[str, Tensor]
    norms: Tensor
    finite: Tensor


Compute = Callable[[StepInputs], StepResult]
Shapes = tuple[tuple[str, torch.Size, torch.dtype], ...]


class _Record(NamedTuple):
    """A recorded step: where it reads and where it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: StepInputs
    result: StepResult


class _Side(threading.local):
    """Where a thread records: a stream and memory, the same for all its steps, since it replays one at a time.

    A library keeps what it works with for every stream that it has seen, and a graph's memory is not all given back
    with the graph; with their own, a process would hold more with every run that it trains.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()


_side = functools.cache(_Side)


class StepRecorder:
    """Computes steps; on a GPU those of a stackable head by a CUDA graph, one for each shape of inputs.

    A head's step is some hundred small kernels, which take longer to launch than to run. A stackable head's shapes and
    branches do not depend on values, so that the same kernels in the same order compute every step. Every step of a
    shape is replayed, the first too, so that what a step computes does not depend on where a run went on.
    """

    def __init__(self) -> None:
        self._stack: Stack | None = None
        self._records: dict[Shapes, _Record] = {}
        self._failures = 0

    @property
    def is_recording(self) -> bool:
        """Whether the last stack's steps are replayed."""
        return bool(self._records)

    def __call__(self, stack: Stack, compute: Compute, inputs: StepInputs) -> StepResult:
        """Return what `compute` finds of these inputs; its tensors hold until the next call."""
        if stack.weights.device.type != "cuda" or not stack.template.stackable or self._failures == MOST_FAILURES:
            return compute(inputs)
        if self._stack is not stack:
            self._stack, self._records = stack, {}
        shapes = tuple((name, value.shape, value.dtype) for name, value in inputs.tensors())
        if shapes not in self._records:
            try:
                self._records[shapes] = self._record(stack, compute, inputs)
            except RuntimeError as error:
                self._failures += 1
                logger.warning("this step is launched kernel by kernel, which is slower: %s", _cause(error))
                return compute(inputs)
        record = self._records[shapes]
        for (_, held), (_, value) in zip(record.inputs.tensors(), inputs.tensors(), strict=True):
            held.copy_(value)
        record.graph.replay()
        return record.result

    def _record(self, stack: Stack, compute: Compute, inputs: StepInputs) -> _Record:
        held = StepInputs(
            inputs.per_head, *({name: _copy(value) for name, value in group.items()} for group in inputs[1:])
        )
        before = {name: value.clone() for name, value in stack.constants.items()}
        side = _side(stack.weights.device)
        # What is left of a step on another stream would tie the weights' gradients to that.
        stack.forget_step()
        gc.collect()
        side.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side.stream):
            compute(held)  # libraries set themselves up in their first calls, which must not be recorded
        torch.cuda.current_stream().wait_stream(side.stream)
        with torch.no_grad():
            for name, value in before.items():
                stack.constants[name].copy_(value)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=side.pool, stream=side.stream, capture_error_mode="thread_local"):
            result = compute(held)
        return _Record(graph, held, result)


def _cause(error: BaseException) -> str:
    """Return the first line of what went wrong first; torch's last error is that recording had to end."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).splitlines()[0]


def _copy(value: Tensor) -> Tensor:
    return value.clone(memory_format=torch.contiguous_format)
