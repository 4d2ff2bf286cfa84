"""Which engine `--engine` means."""

from __future__ import annotations

from typing import Literal

from ifcar.errors import InputError
from ifcar.pipelines.engines.cluster import RayConfig
from ifcar.pipelines.engines.contract import ExtractEngine
from ifcar.pipelines.engines.local import LocalEngine
from ifcar.pipelines.engines.ray_extract import RayEngine

EngineName = Literal["local", "ray"]


def cluster_config(engine: str, address: str | None, actor_cpus: int | None = None) -> RayConfig | None:
    """Return where the cluster is, None for the local engine.

    Raises:
        InputError: no such engine, or an option would be ignored.
    """
    if engine == "ray":
        return RayConfig(address=address or "auto", actor_cpus=actor_cpus)
    if engine != "local":
        raise InputError(f"--engine is {engine!r}; expected local or ray")
    for name, value in (("--address", address), ("--actor-cpus", actor_cpus)):
        if value is not None:
            raise InputError(f"{name} {value} would be ignored: it belongs to --engine ray")
    return None


def extract_engine(cluster: RayConfig | None) -> ExtractEngine:
    """Return the engine of `ifcar extract`. Raises InputError when Ray is not installed."""
    return LocalEngine() if cluster is None else RayEngine(cluster)
