"""A Ray cluster: reaching it, and its nodes as they come and go."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Literal

from ifcar.config_fields import Bounds, Option, check_fields
from ifcar.errors import InputError, one_line

CONNECT_SEC = 5.0
MAX_REASON = 400
_HOST_AND_PORT = re.compile(r"(?P<host>[^\s/]+):(?P<port>\d{1,5})")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """Where the work is done.

    Args:
        engine: "local", this machine, or "ray", a cluster.
    """

    engine: Annotated[
        Literal["local", "ray"], Option("local, or ray: the machines of a Ray cluster (pip install 'ifcar[ray]').")
    ] = "local"


@dataclass(frozen=True, kw_only=True, slots=True)
class RayConfig:
    """Where a cluster is and how it is shared out.

    Args:
        address: of the cluster: HOST:PORT, "auto" finds the one that this machine belongs to, "local" starts one for
            this command.
        actor_cpus: cores of one actor; default: a node's cores shared among its GPUs, or all where it has none.
    """

    address: Annotated[str, Option("Of the Ray cluster: auto, HOST:PORT, or local.")] = "auto"
    actor_cpus: Annotated[
        int | None,
        Option("With ray: cores of one actor; default: a node's, shared among its GPUs."),
        Bounds(least=1),
    ] = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.address not in ("auto", "local") and not _HOST_AND_PORT.fullmatch(self.address):
            raise InputError(f"--address is {self.address!r}; expected auto, local or HOST:PORT")


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A machine of the cluster.

    Args:
        identity: Ray's id of it.
        name: for people.
        num_cpus: cores that Ray gives out there.
        num_gpus: GPUs that Ray gives out there.
    """

    identity: str
    name: str
    num_cpus: int
    num_gpus: int


def import_ray() -> ModuleType:
    """Return Ray. Raises InputError when it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise InputError(f"--engine ray needs Ray ({error}); install it with `pip install 'ifcar[ray]'`") from error
    module: ModuleType = ray
    return module


@contextmanager
def connected(config: RayConfig) -> Iterator[ModuleType]:
    """Be a driver of the cluster; what this driver started there ends with it.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    try:
        _knock(config.address)
        ray.init(address=config.address, log_to_driver=False, logging_level="error", namespace="ifcar")
    except Exception as error:  # that of a node which does not start in time has no class of its own
        raise InputError(
            f"no Ray cluster at --address {config.address} ({ray_reason(error)}); start one with `ray start --head`, "
            "join other machines with `ray start --address HOST:6379`, or use --address local"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError when nobody listens at HOST:PORT; Ray itself would try for a minute."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    found = _HOST_AND_PORT.fullmatch(address)
    if found:
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), timeout=CONNECT_SEC).close()


def ray_reason(error: BaseException) -> str:
    """Return the end of what an error of Ray says, in one line; what comes before is Ray's own stack."""
    return one_line(getattr(error, "cause", None) or error)[-MAX_REASON:]


def living_nodes(ray: ModuleType) -> dict[str, Node]:
    """Return the nodes that are there now, by Ray's id."""
    nodes = {}
    for entry in ray.nodes():
        if entry["Alive"]:
            resources, identity = entry["Resources"], entry["NodeID"]
            nodes[identity] = Node(
                identity=identity,
                name=f"{entry['NodeManagerHostname']}-{identity[:4]}",
                num_cpus=int(resources.get("CPU", 0)),
                num_gpus=int(resources.get("GPU", 0)),
            )
    return nodes
