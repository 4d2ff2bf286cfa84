"""`ifcar extract --engine ray`: an actor a GPU, or some cores, on every node; the driver hands out blocks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any

from ifcar.cache.durable import PARTIAL_SUFFIX, remove_partials
from ifcar.cache.writer import CacheWriter
from ifcar.errors import InputError
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.engine import BlockTask
from ifcar.pipelines.engines.actor import Assignment, BlockActor, Sight
from ifcar.pipelines.engines.cluster import Node, RayConfig, connected, import_ray, living_nodes, ray_reason
from ifcar.pipelines.engines.driver import Event, Joined, Lost, RowsDone, Said, Staged, drive
from ifcar.pipelines.engines.same_place import place_here
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.defaults import cache_path
from ifcar.pipelines.extraction.preparation import Preparation
from ifcar.pipelines.folders import folder
from ifcar.pipelines.progress import Progress

NODES_SEC = 2.0  # how often nodes are looked for
COUNT_SEC = 1.0  # how often an actor is asked for its rows
MAX_FALSE_STARTS = 3  # a node on which so many actors end before they are ready gets no more
DISMISS_SEC = 10.0
CALLS = 4  # at once into one actor: two blocks, a count, one spare


class RayEngine:
    """Computes blocks on the nodes of a Ray cluster, see `ExtractEngine`.

    Args:
        config: which cluster, and how it is shared out.
    """

    def __init__(self, config: RayConfig) -> None:
        import_ray()
        self.config = config

    def settle(self, config: ExtractConfig) -> ExtractConfig:
        """Return the options with absolute paths."""
        root = config.data_root or folder("data") / DATASETS.get(config.dataset).default_root
        out = cache_path(config)
        boxes = None if config.boxes is None else config.boxes.absolute()
        return replace(config, data_root=root.absolute(), out=out.absolute(), boxes=boxes)

    def run(
        self, preparation: Preparation, writer: CacheWriter, tasks: Sequence[BlockTask], progress: Progress
    ) -> None:
        """Compute the tasks on every node that sees what the driver sees."""
        config, cache = preparation.config, writer.path.absolute()
        assert config.data_root is not None
        versions = preparation.versions()
        try:
            with (
                place_here(cache / f"driver{PARTIAL_SUFFIX}", [config.data_root, cache]) as place,
                connected(self.config) as ray,
            ):
                assignment = Assignment(place=place, config=config, cache=cache, num_cores=1)
                actors = RayActors(ray, assignment, versions, self.config.actor_cpus)
                try:
                    drive(tasks, actors, writer, progress)
                finally:
                    actors.dismiss()
        finally:
            remove_partials(cache)


@dataclass(kw_only=True, slots=True)
class _Actor:
    """An actor as the driver knows it."""

    handle: Any
    node: Node
    is_ready: bool = False
    is_asked: bool = False
    blocks: set[int] = field(default_factory=set)


class RayActors:
    """The actors on a cluster, see `Actors`.

    Args:
        ray: the module, connected.
        assignment: what every actor is told.
        versions: of the driver's packages; a node with others is named.
        actor_cpus: cores of an actor, see `RayConfig`.
    """

    def __init__(
        self, ray: ModuleType, assignment: Assignment, versions: dict[str, str], actor_cpus: int | None
    ) -> None:
        self._ray, self._assignment, self._versions = ray, assignment, versions
        self._actor_cpus, self._remote = actor_cpus, ray.remote(BlockActor)
        self._members: dict[int, _Actor] = {}
        self._started = 0
        self._nodes: dict[str, Node] = {}
        self._refused: dict[str, str] = {}
        self._false_starts: Counter[str] = Counter()
        self._looked = self._counted = float("-inf")
        self._waits = False
        self._answers: SimpleQueue[tuple[int, str, int, Any]] = SimpleQueue()

    def wait(self, seconds: float) -> list[Event]:
        """Return what happened, see `Actors`."""
        events: list[Event] = []
        if time.monotonic() - self._looked >= NODES_SEC:
            events += self._look_at_nodes()
            self._looked = time.monotonic()
        if time.monotonic() - self._counted >= COUNT_SEC:
            self._ask_for_rows()
            self._counted = time.monotonic()
        try:
            if not events:
                events += self._event(*self._answers.get(timeout=seconds))
            while True:
                events += self._event(*self._answers.get_nowait())
        except Empty:
            return events

    def send(self, actor: int, task: BlockTask) -> None:
        """Give an actor one more block."""
        member = self._members.get(actor)
        if member is not None:  # else its loss is on the way to the driver
            member.blocks.add(task.block)
            self._call(actor, "extract_block", task.block, task)

    def dismiss(self) -> None:
        """End every actor, whatever it is doing, and wait until Ray says that it is gone."""
        calls = []
        for member in self._members.values():
            self._ray.kill(member.handle)
            calls.append(member.handle.rows_done.remote())
        if calls:
            self._ray.wait(calls, num_returns=len(calls), timeout=DISMISS_SEC)
        self._members.clear()

    def _call(self, actor: int, method: str, block: int, *arguments: Any) -> None:
        reference = getattr(self._members[actor].handle, method).remote(*arguments)
        answer = partial(self._answer, actor, method, block)
        reference.future().add_done_callback(answer)

    def _answer(self, actor: int, method: str, block: int, future: Any) -> None:
        self._answers.put((actor, method, block, future))

    def _look_at_nodes(self) -> list[Event]:
        """Start actors on nodes that are new or have room, and notice nodes that are gone."""
        events: list[Event] = []
        now = living_nodes(self._ray)
        for identity in sorted(self._nodes.keys() - now.keys()):
            lost = [actor for actor, member in self._members.items() if member.node.identity == identity]
            for actor in lost:
                events += self._lose(actor, f"node {self._nodes[identity].name} is gone", is_fault=False)
        self._nodes = now
        for node in now.values():
            if node.identity not in self._refused:
                events += self._staff(node)
        if not self._members and all(identity in self._refused for identity in now):
            if now:
                reasons = "; ".join(self._refused[identity] for identity in now)
                raise InputError(f"no node of the cluster can do the work: {reasons}")
            if not self._waits:
                events.append(Said(line="no node is left; waiting for one to join"))
        self._waits = not now
        return events

    def _staff(self, node: Node) -> list[Event]:
        """Start as many actors on a node as it has room for."""
        cores = self._actor_cpus or max(1, node.num_cpus // max(1, node.num_gpus))
        wanted = min(node.num_cpus // cores, node.num_gpus) if node.num_gpus else node.num_cpus // cores
        if not wanted:
            return [self._refuse(node, f"an actor takes {cores} cores, it has {node.num_cpus}")]
        there = sum(member.node.identity == node.identity for member in self._members.values())
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.identity, soft=False)
        for _ in range(wanted - there):
            options = {
                "num_cpus": cores,
                "num_gpus": 1 if node.num_gpus else 0,
                "max_concurrency": CALLS,
                "max_restarts": 0,
                "max_task_retries": 0,
                "scheduling_strategy": strategy,
            }
            handle = self._remote.options(**options).remote(replace(self._assignment, num_cores=cores))
            self._members[self._started] = _Actor(handle=handle, node=node)
            self._call(self._started, "prepare", -1)
            self._started += 1
        return []

    def _refuse(self, node: Node, reason: str) -> Said:
        self._refused[node.identity] = line = f"node {node.name} is refused: {reason}"
        self._looked = float("-inf")
        return Said(line=line)

    def _ask_for_rows(self) -> None:
        for actor, member in self._members.items():
            if member.is_ready and not member.is_asked:
                member.is_asked = True
                self._call(actor, "rows_done", -1)

    def _event(self, actor: int, method: str, block: int, future: Any) -> list[Event]:
        member = self._members.get(actor)
        error = future.exception()
        if member is None:
            if error is None and method == "extract_block":
                return [Staged(actor=actor, staged=future.result())]  # the actor was given up, its block is still good
            return []
        if error is not None:
            return self._failed(actor, member, error)
        value = future.result()
        if method == "prepare":
            return self._admit(actor, member, value)
        if method == "extract_block":
            member.blocks.discard(block)
            return [Staged(actor=actor, staged=value)]
        member.is_asked = False
        return [RowsDone(actor=actor, total=value[0], blocks=value[1])]

    def _admit(self, actor: int, member: _Actor, sight: Sight) -> list[Event]:
        if sight.difference:
            self._ray.kill(member.handle)
            del self._members[actor]
            known = member.node.identity in self._refused
            return [] if known else [self._refuse(member.node, sight.difference)]
        member.is_ready = True
        events: list[Event] = [Joined(actor=actor, node=member.node.name)]
        others = [
            f"{name} {value} (here {self._versions[name]})"
            for name, value in (sight.versions or {}).items()
            if self._versions.get(name) != value
        ]
        if others:
            events.append(Said(line=f"node {member.node.name} computes with {', '.join(others)}"))
        return events

    def _failed(self, actor: int, member: _Actor, error: BaseException) -> list[Event]:
        """Give up an actor that died or raised."""
        died = isinstance(error, self._ray.exceptions.RayActorError)
        reason = "its process died" if died and member.is_ready else ray_reason(error)
        there = member.node.identity in living_nodes(self._ray)
        name = member.node.name
        if member.is_ready:
            line = f"an actor on {name} is lost: {reason}" if there else f"node {name} is gone"
            return self._lose(actor, line, is_fault=there)
        self._ray.kill(member.handle)
        del self._members[actor]
        self._false_starts[member.node.identity] += there
        if self._false_starts[member.node.identity] >= MAX_FALSE_STARTS and member.node.identity not in self._refused:
            return [self._refuse(member.node, f"its actors end before they are ready: {reason}")]
        return []

    def _lose(self, actor: int, reason: str, *, is_fault: bool) -> list[Event]:
        member = self._members.pop(actor)
        self._ray.kill(member.handle)
        self._looked = float("-inf")
        return [Lost(actor=actor, reason=reason, is_fault=is_fault)] if member.is_ready else []
