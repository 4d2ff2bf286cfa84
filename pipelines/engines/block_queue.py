"""Who computes which block: what waits, who holds what, what is done twice at the end because someone is slow."""

from __future__ import annotations

import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from ifcar.errors import InputError
from ifcar.extract.engine import BlockTask

DEPTH = 2  # blocks an actor holds: one in work, one so that decoding runs ahead
MAX_FAULTS = 3  # a block that ends so many actors is given up
OVERDUE = 2.0  # times the median block; then an idle actor does the block as well


class BlockQueue:
    """The state of one extraction on many actors; knows nothing of Ray.

    Args:
        tasks: what to compute.
        clock: seconds.
    """

    def __init__(self, tasks: Sequence[BlockTask], clock: Callable[[], float] = time.monotonic) -> None:
        self._tasks = {task.block: task for task in tasks}
        self._waiting = deque(self._tasks)
        self._done: set[int] = set()
        self._held: dict[int, list[int]] = {}
        self._began: dict[int, float] = {}
        self._holders: dict[int, set[int]] = {}
        self._hungry: set[int] = set()
        self._faults: Counter[int] = Counter()
        self._durations: deque[float] = deque(maxlen=101)
        self._clock = clock

    @property
    def num_left(self) -> int:
        """Blocks that are not finished."""
        return len(self._tasks) - len(self._done)

    def task_of(self, block: int) -> BlockTask:
        """Return a block's task."""
        return self._tasks[block]

    def is_done(self, block: int) -> bool:
        """Return whether a block is finished."""
        return block in self._done

    def join(self, actor: int) -> None:
        """Count on an actor from now on."""
        self._held[actor] = []
        self._hungry.add(actor)

    def finish(self, actor: int, block: int) -> bool:
        """Take a block back from an actor; return whether it is the first to finish it."""
        now = self._clock()
        if actor in self._held and block in self._held[actor]:
            self._durations.append(now - self._began[actor])
            self._held[actor].remove(block)
            self._began[actor] = now
            self._hungry.add(actor)
        is_first = block not in self._done
        self._done.add(block)
        self._let_go(actor, block)
        return is_first

    def lose(self, actor: int, reason: str, *, is_fault: bool) -> None:
        """Forget an actor; what only it held waits again, in front.

        Args:
            actor: one that joined.
            reason: one line.
            is_fault: the actor ended by itself; its node is there.

        Raises:
            InputError: the block in its hands has ended MAX_FAULTS actors.
        """
        held = self._held.pop(actor, [])
        self._hungry.discard(actor)
        if is_fault and held:
            self._faults[held[0]] += 1
            if self._faults[held[0]] >= MAX_FAULTS and held[0] not in self._done:
                raise InputError(
                    f"block {held[0]} (rows {self._tasks[held[0]].rows[0]} and on) ended {MAX_FAULTS} actors; the "
                    f"last: {reason}. What is committed is kept; run the same command again when it is mended"
                )
        for block in reversed(held):
            self._let_go(actor, block)
            if block not in self._done and block not in self._holders:
                self._waiting.appendleft(block)

    def hand_out(self) -> list[tuple[int, BlockTask]]:
        """Return what every actor with room shall do next; first one block for each, then the next."""
        out: list[tuple[int, BlockTask]] = []
        for level in range(DEPTH):
            for actor in sorted(a for a in self._hungry if len(self._held[a]) == level):
                while self._waiting and self._waiting[0] in self._done:
                    self._waiting.popleft()  # it came from an actor that was given up
                if not self._waiting:
                    break
                out.append(self._give(actor, self._waiting.popleft()))
        idle = [] if self._waiting else sorted(a for a in self._hungry if not self._held[a])
        if idle and self.num_left:
            for block in self._repeatable():
                if idle:
                    out.append(self._give(idle.pop(0), block))
        return out

    def _give(self, actor: int, block: int) -> tuple[int, BlockTask]:
        if not self._held[actor]:
            self._began[actor] = self._clock()
        self._held[actor].append(block)
        self._holders.setdefault(block, set()).add(actor)
        if len(self._held[actor]) == DEPTH:
            self._hungry.discard(actor)
        return actor, self._tasks[block]

    def _let_go(self, actor: int, block: int) -> None:
        holders = self._holders.get(block, set())
        holders.discard(actor)
        if not holders:
            self._holders.pop(block, None)

    def _repeatable(self) -> list[int]:
        """Return the blocks that one actor alone holds and has not begun, or has had for long; longest first."""
        if not self._durations:
            return []
        limit, now = OVERDUE * statistics.median(self._durations), self._clock()
        found = []
        for actor, held in self._held.items():
            for place, block in enumerate(held):
                age = now - self._began[actor]
                if block not in self._done and len(self._holders[block]) == 1 and (place or age > limit):
                    found.append((-age, place, block))
        return [block for _, _, block in sorted(found)]
