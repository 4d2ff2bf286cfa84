"""Where the fleets of a grid train: a pool of processes here, or the nodes of a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

import torch

from ifcar.pipelines.feed.memory import Memory, free_bytes
from ifcar.terminal import quiet_libraries


@dataclass(frozen=True, kw_only=True, slots=True)
class Workers:
    """The processes that train fleets, and the room they have.

    Args:
        processes: fleets at once.
        device: "cpu", "cuda", …
        free: bytes of memory that are free for all of them.
        isolates: a process that dies takes no other fleet with it.
        executor: called with the number of processes; gives what runs them. A future whose process is gone raises
            BrokenExecutor.
        memory: where runs keep their rows, see `ifcar.pipelines.feed.batches.BatchReader`.
    """

    processes: int
    device: str
    free: int
    isolates: bool
    executor: Callable[[int], AbstractContextManager[Executor]]
    memory: Memory = "auto"


def local_workers(initializer: Callable[[], None], *, processes: int | None, device: str | None) -> Workers:
    """Return this machine's room.

    Args:
        initializer: called in every process first.
        processes: fleets at once; default: one a core, or a single one on a GPU.
        device: see `fit`.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    cuda = device.startswith("cuda")
    return Workers(
        processes=processes or (1 if cuda else os.cpu_count() or 1),
        device=device,
        free=free_on(device),
        isolates=False,
        executor=partial(_processes, initializer),
    )


@contextmanager
def _processes(initializer: Callable[[], None], number: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool whose processes are ended at once when the block raises: their work goes on from checkpoints."""
    context = _context()
    others = {child.pid for child in multiprocessing.active_children()}
    with ProcessPoolExecutor(
        number, mp_context=context, initializer=_begin, initargs=(initializer, dict(os.environ))
    ) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                if child.pid not in others:
                    child.terminate()
            raise


def _context() -> BaseContext:
    """Return how processes begin: on Linux as forks of a server that has read what this process has and does no work.

    Elsewhere a system's own libraries do not bear a fork, and every process reads all anew.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    own = sorted(name for name in sys.modules if name.partition(".")[0] == "ifcar")
    context.set_forkserver_preload(["torch", "zarr", *([] if sys.flags.ignore_environment else own)])
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # while it reads, Ctrl-C is this process's
    try:
        with _found_alike():
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    return context


@contextmanager
def _found_alike() -> Iterator[None]:
    """Let Python programs that begin in this block find modules where this process does, not first in its own folder.

    A folder `ifcar` in that, as a clone makes one, would be read as the package.
    """
    changed = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _begin(initializer: Callable[[], None], environment: Mapping[str, str]) -> None:
    """Set up a process that ends when its parent does, however that ends.

    A fork of the server has the variables of when that began; plugins, for one, may have been named since.
    """
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends this one
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    quiet_libraries()
    initializer()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def free_on(device: str) -> int:
    """Return the bytes of memory that are free on a device of this machine."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    return free_bytes()
