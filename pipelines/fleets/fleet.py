"""Fleets: which runs train together, and how many at once.

Runs that differ in seed, λ, learning rate, weight decay and dropout rates (above 0) only have weights of the same
shapes and see batches of the same sizes, so that they can go through the same layers in lockstep.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.durable import write_atomic
from ifcar.cache.open import open_cache
from ifcar.cache.schema import Split
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import InstanceBatch
from ifcar.pipelines.configs import to_plain
from ifcar.pipelines.feed.memory import PRELOAD_SHARE
from ifcar.pipelines.fleets.workers import free_on
from ifcar.pipelines.runs.config import ID_LENGTH, RunConfig, run_id
from ifcar.pipelines.runs.finished import is_finished
from ifcar.pipelines.runs.heads import build_head
from ifcar.pipelines.runs.resolve import head_arrays
from ifcar.pipelines.runs.schedule import make_plan
from ifcar.pipelines.training.checkpoint import NAME as CHECKPOINT
from ifcar.pipelines.training.jobs import Job

FOLDER, MEMBERS = ".fleets", "members.json"
FLEET_SHARE = 0.5  # of the memory that is free, for the fleets that train at once
MOST_ON_CPU, MOST_ON_CUDA = 16, 64  # beyond these a run gets no faster (benchmarks/fleets.py)
LARGE_ON_CPU = 256 * 2**20  # bytes of a run that fills a core's caches alone and gets slower beside others


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """Runs that train together.

    Args:
        jobs: the runs, in the order of their rows.
        folder: of the checkpoint.
    """

    jobs: tuple[Job, ...]
    folder: Path


def make_fleet(jobs: Sequence[Job]) -> Fleet:
    """Return the fleet of these runs; a single run keeps its checkpoint in its own folder."""
    if len(jobs) == 1:
        return Fleet(jobs=tuple(jobs), folder=jobs[0].path)
    ids = json.dumps([run_id(job.config) for job in jobs])
    name = hashlib.sha256(ids.encode()).hexdigest()[:ID_LENGTH]
    return Fleet(jobs=tuple(jobs), folder=jobs[0].path.parent / FOLDER / name)


def plan_fleets(
    jobs: Sequence[Job], *, processes: int, device: str, free: int | None = None, fleet_size: int | None = None
) -> tuple[list[Fleet], list[str]]:
    """Group unfinished runs into fleets, those that a stopped grid left as it left them, and write down who is where.

    Args:
        jobs: the runs; finished ones matter only as members of a stopped fleet.
        processes: fleets that train at once.
        device: "cpu", "cuda", …
        free: bytes of memory that are free for all of them; default: what is free here.
        fleet_size: runs in a fleet at most; default: by free memory, and so that every process has work.

    Returns:
        The fleets, large ones first, and one line on each choice of size.
    """
    stopped = [
        fleet for fleet in _stopped_fleets(jobs) if fleet_size is None or len(fleet.jobs) <= fleet_size or _begun(fleet)
    ]
    placed = {job.path for fleet in stopped for job in fleet.jobs}
    left = [job for job in jobs if job.path not in placed and not is_finished(job.path)]
    alone = [make_fleet([job]) for job in left if (job.path / CHECKPOINT).is_file()]
    groups: dict[str, list[Job]] = {}
    for job in left:
        if not (job.path / CHECKPOINT).is_file():
            stackable = HEADS.get(job.config.head).stackable
            groups.setdefault(fleet_key(job.config) if stackable else str(job.path), []).append(job)
    fleets, lines = [], []
    cuda = device.startswith("cuda")
    free = free_on(device) if free is None else free
    share = -(-len(left) // processes)
    for group in groups.values():
        size = fleet_size or 1
        if fleet_size is None and len(group) > 1:
            size, line = choose_size(group, processes=processes, free=free, cuda=cuda)
            lines.append(line)
        number = -(-len(group) // min(size, share))
        group = sorted(group, key=lambda job: job.config.seed)  # those of one seed share their batches
        fleets += [make_fleet([group[n] for n in part]) for part in np.array_split(np.arange(len(group)), number)]
    for fleet in fleets:
        if len(fleet.jobs) > 1:
            fleet.folder.mkdir(parents=True, exist_ok=True)
            names = [job.path.name for job in fleet.jobs]
            write_atomic(fleet.folder / MEMBERS, (json.dumps(names, indent=1) + "\n").encode())
    return sorted([*stopped, *alone, *fleets], key=lambda fleet: -len(fleet.jobs)), lines


def fleet_key(config: RunConfig) -> str:
    """Return what the runs of a fleet have in common; a resolved config's everything but what each may have its own."""
    content = to_plain(config)
    for key in ("seed", "cache", "preset"):
        del content[key]
    for key in ("lr", "weight_decay"):
        del content["schedule"][key]
    for key in ("base", "base_id"):
        if content["fine_tune"] is not None:
            del content["fine_tune"][key]
    content["aux_weights"] = sorted(content["aux_weights"])
    content["options"] = _without_rates(content["options"])
    return json.dumps(content, sort_keys=True)


def _without_rates(options: Any) -> Any:
    """Return a head's options, of each dropout rate only whether it is above 0: one of 0 may have no layer."""
    if not isinstance(options, Mapping):
        return options
    return {key: float(value) > 0 if key == "dropout" else _without_rates(value) for key, value in options.items()}


def end_fleet(fleet: Fleet) -> None:
    """Remove what a fleet of several runs kept while it trained."""
    if len(fleet.jobs) > 1 and fleet.folder.is_dir():
        (fleet.folder / MEMBERS).unlink(missing_ok=True)  # first: without it the rest means nothing
        shutil.rmtree(fleet.folder)


def _begun(fleet: Fleet) -> bool:
    return (fleet.folder / CHECKPOINT).is_file()


def _stopped_fleets(jobs: Sequence[Job]) -> list[Fleet]:
    """Return the fleets that an earlier grid did not end and whose runs are all among `jobs`; remove what is done."""
    known = {job.path: job for job in jobs}
    fleets: list[Fleet] = []
    for file in sorted({path for job in jobs for path in (job.path.parent / FOLDER).glob(f"*/{MEMBERS}")}):
        members = [file.parent.parent.parent / name for name in json.loads(file.read_text(encoding="utf-8"))]
        if all(path in known for path in members):
            fleet = make_fleet([known[path] for path in members])
            if fleet.folder != file.parent:
                continue  # of runs with the same names but other configs
            if all(is_finished(path) for path in members):
                end_fleet(fleet)
            else:
                fleets.append(fleet)
    fleets.sort(key=lambda fleet: (not _begun(fleet), fleet.folder))
    placed: set[Path] = set()
    kept = []
    for fleet in fleets:
        if placed.isdisjoint(job.path for job in fleet.jobs):
            placed |= {job.path for job in fleet.jobs}
            kept.append(fleet)
    return kept


def choose_size(group: Sequence[Job], *, processes: int, free: int, cuda: bool) -> tuple[int, str]:
    """Return how many runs of a group may train together, and one line that says why.

    Args:
        group: runs of one key.
        processes: fleets that train at once.
        free: bytes of memory that are free.
        cuda: whether that is a GPU's.
    """
    config = group[0].config
    reader = open_cache(config.cache)
    protocol = reader.protocol(config.protocol).only(config.labels)
    num_train, num_test = (len(protocol.clips(split)) for split in (Split.TRAIN, Split.TEST))
    each = member_bytes(config, reader.spec_of(config.protocol), len(protocol.labels.classes), num_train)
    row = reader.spec.row_bytes(name for name in head_arrays(config, reader.spec) if reader.spec.array(name).sharded)
    preloaded = (num_train * reader.rows_per_clip + num_test * reader.num_views) * row
    reader.close()
    usable = FLEET_SHARE * (free - processes * (preloaded if preloaded <= PRELOAD_SHARE * free else 0))
    size = min(max(1, int(usable / processes / each)), MOST_ON_CUDA if cuda else MOST_ON_CPU)
    if not cuda and each > LARGE_ON_CPU:
        size = 1
    size = 1 << (size.bit_length() - 1)  # a power of two: a little more or less free memory changes nothing
    return size, (
        f"{config.head}, {len(group)} runs: {each / 2**20:,.0f} MiB a run, {free / 2**30:,.1f} GiB free, "
        f"so at most {size} together"
    )


def member_bytes(config: RunConfig, spec: CacheSpec, num_classes: int, num_clips: int) -> int:
    """Return an estimate of the memory that one more run of a fleet takes: weights, optimiser, batch, activations.

    The activations are those that the backward pass of one batch keeps, counted on a head without memory.
    """
    reads = head_arrays(config)
    plan = make_plan(config.schedule, num_clips, reads_appearance=spec.reads_features(reads))
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.device("meta"):
        head = build_head(config, spec, num_classes)
        batch = InstanceBatch(
            {
                name: torch.zeros((plan.batch_size, *spec.shape(name)), dtype=getattr(torch, spec.array(name).dtype))
                for name in reads
            }
        )
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            head(batch)
    weights = 4 * sum(parameter.numel() for parameter in head.parameters())
    copies = 6 + (2 if plan.optimizer == "adam" else 1)  # start, weights, gradients twice, best, final; optimiser state
    rows = plan.batch_size * spec.row_bytes(reads)
    activations = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return copies * weights + rows + 2 * activations
