"""`ifcar grid --engine ray`: an executor that trains a fleet a GPU, or a core, on every node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any

from ifcar.errors import InputError, one_line
from ifcar.pipelines.engines.cluster import Node, RayConfig, connected, living_nodes, ray_reason
from ifcar.pipelines.engines.same_place import DriverPlace, place_here
from ifcar.pipelines.fleets.workers import Workers, free_on
from ifcar.pipelines.progress import Progress

NODES_SEC = 2.0
MARK = ".driver"
LOOK_GPUS = 0.01  # without a share of a GPU a task sees none


@contextmanager
def ray_workers(
    config: RayConfig,
    initializer: Callable[[], None],
    progress: Progress,
    *,
    folder: Path,
    paths: Sequence[Path],
    processes: int | None,
    device: str | None,
) -> Iterator[Workers]:
    """Return a cluster's room, once the nodes that are there have said what they see.

    Args:
        config: which cluster.
        initializer: called in every process first.
        progress: told about nodes that are refused.
        folder: of the runs.
        paths: what every node must see.
        processes: fleets at once at most; default: one a core, or one a GPU where there are any.
        device: default: cuda where a node has a GPU.

    Raises:
        InputError: Ray is not installed, there is no cluster, or no node of it can do the work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with place_here(folder / MARK, [folder, *paths]) as place, connected(config) as ray:
        if device is None:
            device = "cuda" if any(node.num_gpus for node in living_nodes(ray).values()) else "cpu"
        executor = NodeExecutor(ray, place, initializer, progress, device)
        try:
            slots, free = executor.wait_for_nodes()
            number = min(processes or slots, slots)
            yield Workers(
                processes=number,
                device=device,
                free=free * number,
                isolates=True,
                executor=lambda _: nullcontext(executor.limited(number)),
            )
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


def look(place: DriverPlace, device: str) -> tuple[str, int]:
    """Return, on a node, what differs from the driver and how many bytes are free."""
    difference = place.take()
    return difference, 0 if difference else free_on(device)


def work(place: DriverPlace, initializer: Callable[[], None], function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on a node as the driver would."""
    difference = place.take()
    if difference:
        raise InputError(difference)
    initializer()
    return function(*arguments)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    future: Future[Any]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(kw_only=True, slots=True)
class _Place:
    """A node as the executor knows it; `slots` is None until it has said what it sees, 0 when it is refused."""

    node: Node
    slots: int | None = None
    free: int = 0
    running: dict[Any, _Call] = field(default_factory=dict)


class NodeExecutor(Executor):
    """Runs calls on the nodes of a cluster, as many at once as each has room for; new nodes are taken in.

    Args:
        ray: the module, connected.
        place: where the driver stands.
        initializer: called before every call, in its process.
        progress: told about nodes that are refused.
        device: "cpu" or "cuda": what a call takes one of.
    """

    def __init__(
        self, ray: ModuleType, place: DriverPlace, initializer: Callable[[], None], progress: Progress, device: str
    ) -> None:
        self._ray, self._place, self._initializer = ray, place, initializer
        self._progress, self._device = progress, device
        self._places: dict[str, _Place] = {}
        self._refusals: list[str] = []
        self._waiting: list[_Call] = []
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._limit: int | None = None
        self._looked = threading.Event()
        self._fault: InputError | None = None
        self._thread = threading.Thread(target=self._serve, name="nodes", daemon=True)
        self._thread.start()

    def limited(self, number: int) -> NodeExecutor:
        """Run at most so many calls at once."""
        self._limit = number
        return self

    def wait_for_nodes(self) -> tuple[int, int]:
        """Return (calls at once, free bytes for each), once every node that was there has said what it sees.

        Raises:
            InputError: none of them can do the work, or the cluster is lost; says why.
        """
        self._looked.wait()
        if self._fault:
            raise self._fault
        ready = [place for place in self._places.values() if place.slots]
        if not ready:
            raise InputError("no node of the cluster can do the work: " + "; ".join(self._refusals or ["it has none"]))
        slots = [place.slots or 1 for place in ready]
        return sum(slots), min(place.free // count for place, count in zip(ready, slots, strict=True))

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Run a call as soon as a node has room; BrokenExecutor when its process or node is lost."""
        call = _Call(
            future=Future(), function=partial(function, **keywords) if keywords else function, arguments=arguments
        )
        self._inbox.put(partial(self._waiting.append, call))
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop taking calls; those under way are ended."""
        self._inbox.put(None)
        self._thread.join()

    def _serve(self) -> None:
        looked = float("-inf")
        while True:
            try:
                if time.monotonic() - looked >= NODES_SEC and not self._fault:
                    self._look_at_nodes()
                    looked = time.monotonic()
                self._start_waiting()
            except Exception as error:  # of Ray, which is not there any more; whoever waits for a call must hear of it
                self._fault = InputError(f"the Ray cluster is lost ({ray_reason(error)}); what is finished is kept")
                self._looked.set()
            if self._fault:
                self._give_up(self._fault)
            try:
                action = self._inbox.get(timeout=NODES_SEC)
            except Empty:
                continue
            if action is None:
                break
            action()
        for call in self._waiting:
            call.future.cancel()
        for place in self._places.values():
            for reference in place.running:
                self._ray.cancel(reference, force=True)

    def _give_up(self, fault: InputError) -> None:
        under_way = [call for place in self._places.values() for call in place.running.values()]
        for call in (*self._waiting, *under_way):
            call.future.set_exception(fault)
        self._waiting.clear()
        self._places.clear()

    def _look_at_nodes(self) -> None:
        now = living_nodes(self._ray)
        gone = self._places.keys() - now.keys()
        for identity in gone:
            del self._places[identity]
        if gone and not now:
            self._progress.say("no node is left; waiting for one to join")
        for identity in sorted(now.keys() - self._places.keys()):
            place = self._places[identity] = _Place(node=now[identity])
            reference = self._remote(place.node, count=0).remote(look, self._place, self._device)
            reference.future().add_done_callback(lambda f, p=place: self._inbox.put(partial(self._take_in, p, f)))
        if not now:
            self._looked.set()

    def _take_in(self, place: _Place, future: Any) -> None:
        error = future.exception()
        difference, place.free = (ray_reason(error), 0) if error else future.result()
        room = place.node.num_gpus if self._device.startswith("cuda") else place.node.num_cpus
        place.slots = 0 if difference else room
        if difference:
            line = f"node {place.node.name} is refused: {one_line(difference)}"
            self._refusals.append(line)
            self._progress.say(line)
        if all(other.slots is not None for other in self._places.values()):
            self._looked.set()

    def _start_waiting(self) -> None:
        """Give every waiting call to the node with the most room, as long as there is any."""
        while self._waiting and self._has_room():
            places = [place for place in self._places.values() if len(place.running) < (place.slots or 0)]
            if not places:
                return
            call = self._waiting.pop(0)
            if call.future.set_running_or_notify_cancel():
                self._start(call, min(places, key=lambda place: (len(place.running), place.node.identity)))

    def _start(self, call: _Call, place: _Place) -> None:
        remote = self._remote(place.node, count=1)
        reference = remote.remote(work, self._place, self._initializer, call.function, *call.arguments)
        place.running[reference] = call
        end = partial(self._end, place, reference, call)
        reference.future().add_done_callback(lambda future: self._inbox.put(partial(end, future)))

    def _has_room(self) -> bool:
        return self._limit is None or sum(len(place.running) for place in self._places.values()) < self._limit

    def _end(self, place: _Place, reference: Any, call: _Call, future: Any) -> None:
        place.running.pop(reference, None)
        error = future.exception()
        if call.future.done():
            return
        if error is None:
            call.future.set_result(future.result())
        elif isinstance(error, self._ray.exceptions.RayTaskError):
            call.future.set_exception(getattr(error, "cause", None) or error)
        else:
            call.future.set_exception(BrokenExecutor(f"the process on {place.node.name} is gone"))

    def _remote(self, node: Node, *, count: int) -> Any:
        """Return Ray's `call` bound to a node, taking `count` of what calls take."""
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.identity, soft=False)
        cuda = self._device.startswith("cuda")
        options = {"num_gpus": count or LOOK_GPUS, "num_cpus": 0} if cuda else {"num_cpus": count}
        return self._ray.remote(call_there).options(max_retries=0, scheduling_strategy=strategy, **options)


def call_there(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; the one task that Ray is given, so that its workers are used again."""
    return function(*arguments)
