"""A run's head: built by its config, or started from another run's weights."""

from __future__ import annotations

from dataclasses import replace

import torch

from ifcar.cache.arrays import CacheSpec
from ifcar.errors import CacheMismatchError, InputError, one_line
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import Head
from ifcar.pipelines.runs.config import FineTuneConfig, RunConfig, run_id
from ifcar.pipelines.runs.finished import open_run
from ifcar.pipelines.runs.resolve import head_options
from ifcar.pipelines.runs.weights import load_tensors


def build_head(config: RunConfig, spec: CacheSpec, num_classes: int) -> Head:
    """Build a run's head for a cache's arrays, with weights drawn from the run's seed.

    Raises:
        CacheMismatchError: the cache lacks an array that the head reads.
        InputError: options out of range, or of a head that does not fit into memory.
    """
    torch.manual_seed(config.seed)
    options = head_options(config)
    try:
        return HEADS.get(config.head).build(options, spec, num_classes, config.aux_weights)
    except CacheMismatchError as error:
        raise CacheMismatchError(f"{config.cache}: {error}") from error
    except (RuntimeError, MemoryError) as error:
        reason = one_line(error)[:200]
        raise InputError(f"head {config.head!r} cannot be built with these options ({reason})") from error


def start_from_base(config: RunConfig, fine_tune: FineTuneConfig, head: Head) -> RunConfig:
    """Load the base run's weights into `head`, keeping a new classifier where the classes differ.

    Returns:
        The config with the base run's id.

    Raises:
        MissingDataError, InputError: the base run is not finished, is another head, or was trained on another cache.
    """
    base = open_run(fine_tune.base)
    if not isinstance(base.config, RunConfig) or base.config.head != config.head:
        raise InputError(
            f"{base.path}: a run of {base.config.head!r}; a {config.head!r} run can start from its own kind"
        )
    differing = [k for k in ("fingerprint", "options") if getattr(base.config, k) != getattr(config, k)]
    if differing:
        raise InputError(f"{base.path}: another {', '.join(differing)} than the run that is to start from it")
    base_id = run_id(base.config)
    if fine_tune.base_id not in ("", base_id):
        raise InputError(f"{base.path}: not the run that was started from; it has been trained anew since")
    weights = load_tensors(base.path / "model.safetensors")
    own = head.state_dict()
    kept = {k for k in own if k.startswith("classifier.") and weights[k].shape != own[k].shape}
    head.load_state_dict({k: own[k] if k in kept else v for k, v in weights.items()})
    if fine_tune.train == "classifier":
        for name, parameter in head.named_parameters():
            parameter.requires_grad_(name.startswith("classifier."))
    return replace(config, fine_tune=replace(fine_tune, base_id=base_id))
