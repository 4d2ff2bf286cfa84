"""Which engine `--engine` means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ifcar.config_fields import fields_of
from ifcar.errors import InputError
from ifcar.pipelines.engines.cluster import EngineConfig, RayConfig
from ifcar.pipelines.engines.contract import ExtractEngine
from ifcar.pipelines.engines.local import LocalEngine
from ifcar.pipelines.engines.ray_extract import RayEngine


def cluster_config(given: Mapping[str, Any]) -> RayConfig | None:
    """Return where the cluster is, None for the local engine.

    Args:
        given: the options that were given of `EngineConfig` and `RayConfig`, by field.

    Raises:
        InputError: an option would be ignored.
    """
    of_ray = {name: value for name, value in given.items() if name in fields_of(RayConfig)}
    if EngineConfig(**{name: given[name] for name in given.keys() - of_ray}).engine == "ray":
        return RayConfig(**of_ray)
    for name, value in of_ray.items():
        raise InputError(f"{fields_of(RayConfig)[name].flag} {value} would be ignored: it belongs to --engine ray")
    return None


def extract_engine(cluster: RayConfig | None) -> ExtractEngine:
    """Return the engine of `ifcar extract`. Raises InputError when Ray is not installed."""
    return LocalEngine() if cluster is None else RayEngine(cluster)
