"""The driver of an extraction on many actors: hands out blocks, publishes what comes back, shows how far it is.

It is the one process that changes what a reader sees. An actor stages a block under names of its own; whether it was
given up for dead meanwhile does not matter: the first staged copy that arrives is published, any other is removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ifcar.cache.blocks import StagedBlock
from ifcar.cache.writer import CacheWriter
from ifcar.extract.engine import BlockTask
from ifcar.pipelines.engines.block_queue import BlockQueue
from ifcar.pipelines.progress import Progress

POLL_SEC = 1.0
SHOW_SEC = 0.25  # a count over all actors for every event would be most of the driver's work
NODES_NAMED = 4  # more nodes than these are shown as one range


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """An actor is ready for work."""

    actor: int
    node: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Staged:
    """An actor has staged a block."""

    actor: int
    staged: StagedBlock


@dataclass(frozen=True, kw_only=True, slots=True)
class RowsDone:
    """What an actor has done since it joined, and of the blocks that it holds: (rows, failed rows) each."""

    actor: int
    total: int
    blocks: Mapping[int, tuple[int, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """An actor is gone; `is_fault`: it ended by itself, its node is there."""

    actor: int
    reason: str
    is_fault: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """Something that the user should know."""

    line: str


Event = Joined | Staged | RowsDone | Lost | Said


class Actors(Protocol):
    """The actors, as the driver sees them."""

    def wait(self, seconds: float) -> Sequence[Event]:
        """Return what happened, as soon as something has, at the latest after `seconds`.

        Raises:
            InputError: nobody is left who could do the work.
        """

    def send(self, actor: int, task: BlockTask) -> None:
        """Give an actor one more block."""


def drive(
    tasks: Sequence[BlockTask],
    actors: Actors,
    writer: CacheWriter,
    progress: Progress,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Have every task computed by the actors, and commit it.

    Args:
        tasks: blocks that are not committed, or reopened.
        actors: who computes.
        writer: the open cache.
        progress: its stage is begun.
        clock: seconds.

    Raises:
        InputError: work cannot go on.
    """
    queue, count, shown = BlockQueue(tasks, clock), RowRates(progress, clock), clock()
    while queue.num_left:
        for event in actors.wait(POLL_SEC):
            match event:
                case Joined(actor=actor, node=node):
                    queue.join(actor)
                    count.join(actor, node)
                case Staged(actor=actor, staged=staged):
                    block = staged.record.block
                    if queue.finish(actor, block):
                        writer.publish_block(staged)
                        count.finish(queue.task_of(block), len(staged.record.failures))
                    else:
                        staged.discard(writer.path)
                case RowsDone():
                    count.update(event)
                case Lost(actor=actor, reason=reason, is_fault=is_fault):
                    progress.say(f"{reason}; its blocks go to others")
                    count.lose(actor)
                    queue.lose(actor, reason, is_fault=is_fault)
                case Said(line=line):
                    progress.say(line)
        for actor, task in queue.hand_out():
            actors.send(actor, task)
        if clock() - shown >= SHOW_SEC or not queue.num_left:
            count.show(queue)
            shown = clock()


class RowRates:
    """Rows done, failed and a second, over all nodes.

    Args:
        progress: its stage is begun.
        clock: seconds.
    """

    def __init__(self, progress: Progress, clock: Callable[[], float]) -> None:
        self._progress, self._clock = progress, clock
        self._node: dict[int, str] = {}
        self._rows: dict[int, int] = {}
        self._since: dict[str, float] = {}
        self._parts: dict[int, Mapping[int, tuple[int, int]]] = {}
        self._finished = self._failed = self._shown = 0

    def join(self, actor: int, node: str) -> None:
        """Count an actor in."""
        self._node[actor], self._rows[actor] = node, 0
        self._since.setdefault(node, self._clock())

    def lose(self, actor: int) -> None:
        """Forget an actor and what it had begun."""
        for values in (self._node, self._rows, self._parts):
            values.pop(actor, None)
        self._since = {node: since for node, since in self._since.items() if node in self._node.values()}

    def finish(self, task: BlockTask, num_failed: int) -> None:
        """Count a committed block."""
        self._finished += len(task.rows)
        self._failed += num_failed

    def update(self, event: RowsDone) -> None:
        """Take an actor's own count."""
        if event.actor in self._node:
            self._rows[event.actor] = event.total
            self._parts[event.actor] = event.blocks

    def show(self, queue: BlockQueue) -> None:
        """Bring the progress up to date; it never goes back when an actor is lost."""
        best: dict[int, tuple[int, int]] = {}
        for parts in self._parts.values():
            for block, counts in parts.items():
                if not queue.is_done(block):
                    best[block] = max(counts, best.get(block, counts))
        done = self._finished + sum(rows for rows, _ in best.values())
        failed = self._failed + sum(bad for _, bad in best.values())
        notes = [f"{failed} failed"] if failed else []
        self._progress.advance(max(0, done - self._shown), note=" · ".join([*notes, *self._rates()]))
        self._shown = max(done, self._shown)

    def _rates(self) -> list[str]:
        rows: dict[str, int] = dict.fromkeys(self._since, 0)
        for actor, node in self._node.items():
            rows[node] += self._rows[actor]
        now = self._clock()
        rates = {node: rows[node] / max(now - self._since[node], 1e-9) for node in sorted(rows)}
        if len(rates) <= NODES_NAMED:
            return [f"{node} {rate:.1f}/s" for node, rate in rates.items()]
        return [f"{len(rates)} nodes, {min(rates.values()):.1f} to {max(rates.values()):.1f}/s each"]
