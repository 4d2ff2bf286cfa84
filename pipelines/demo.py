"""`ifcar demo`: the whole way on generated videos, narrow enough for a laptop."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ifcar.cache.durable import write_atomic
from ifcar.cache.reader import open_cache
from ifcar.errors import InputError
from ifcar.pipelines.configs import to_plain
from ifcar.pipelines.ensemble import ensemble
from ifcar.pipelines.extract import ExtractResult, extract
from ifcar.pipelines.fit import fit
from ifcar.pipelines.folders import folder
from ifcar.pipelines.pictures import draw_clips
from ifcar.pipelines.progress import Progress, Silent
from ifcar.pipelines.resolve import make_run_config
from ifcar.pipelines.run_config import RunConfig, run_name
from ifcar.pipelines.runs import Run, is_finished, open_run, read_config
from ifcar.pipelines.schedule import ScheduleConfig
from ifcar.pipelines.sources import ExtractConfig

PROTOCOLS = ("compositional", "shuffled")
SEEDS = (0, 1, 2)
PREDICTION_WEIGHT = 5.0
SCHEDULE = ScheduleConfig(kind="stretched", min_steps=700, refit=False)
NUM_PICTURES = 4
PRESET_NOTE = (
    "Preset small: 64-wide streams, 112-pixel crops, one 7×7-max-pooled vector an instance, i3d_r50 with random "
    "weights. The figures compare heads; they say nothing about the papers' accuracies."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoSystem:
    """One line of the demo's table."""

    label: str
    head: str
    streams: str | None = None
    aux_weight: float = 0.0


SYSTEMS = (
    DemoSystem(label="I3D (frame level)", head="i3d"),
    DemoSystem(label="base, appearance", head="base", streams="appearance"),
    DemoSystem(label="base, layout", head="base", streams="layout"),
    DemoSystem(label="base, both", head="base"),
    DemoSystem(label="SFI", head="sfi"),
    DemoSystem(label="SFI + prediction", head="sfi", aux_weight=PREDICTION_WEIGHT),
)
FRAME_SYSTEM, FUSED_SYSTEM = SYSTEMS[0], SYSTEMS[-1]
ENSEMBLE_LABEL = "I3D ⊕ SFI + prediction"


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoRow:
    """Results of one system on one protocol, one entry a seed, as shares.

    Args:
        system: the system's label.
        protocol: the protocol.
        n: test clips.
        top1: test top-1.
        top5: test top-5.
        train_top1: top-1 on the training clips.
    """

    system: str
    protocol: str
    n: int
    top1: tuple[float, ...]
    top5: tuple[float, ...]
    train_top1: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    """What the demo made."""

    extraction: ExtractResult
    rows: Sequence[DemoRow]
    table: Path
    pictures: Sequence[Path]


def demo(progress: Progress, *, processes: int | None = None) -> DemoResult:
    """Render toybox, extract it, train every system on every protocol and seed, fuse, and write the table.

    Interrupted and run again, it goes on where it was: finished blocks and runs are kept, stopped runs resumed.
    """
    progress.say(PRESET_NOTE)
    cache = folder("caches") / "demo.zarr"
    extraction = extract(ExtractConfig(dataset="toybox", pooled="7-max", out=cache), progress)
    jobs = [(s, p, seed) for p in PROTOCOLS for s in SYSTEMS for seed in SEEDS]
    configs = [_run_config(system, cache, protocol, seed) for system, protocol, seed in jobs]
    paths = [folder("runs") / f"demo-{run_name(config)}" for config in configs]
    _fit_all(configs, paths, progress, processes or os.cpu_count() or 1)
    runs = {job: open_run(path) for job, path in zip(jobs, paths, strict=True)}
    rows: list[DemoRow] = []
    for protocol in PROTOCOLS:
        rows += [_row(s.label, protocol, [runs[s, protocol, seed] for seed in SEEDS]) for s in SYSTEMS]
        fused = [_fuse(runs[FRAME_SYSTEM, protocol, k], runs[FUSED_SYSTEM, protocol, k]) for k in SEEDS]
        rows.append(_row(ENSEMBLE_LABEL, protocol, fused))
    table = folder("runs") / "demo.md"
    write_atomic(table, markdown(rows).encode())
    write_atomic(table.with_suffix(".json"), (json.dumps([asdict(r) for r in rows], indent=1) + "\n").encode())
    reader = open_cache(cache)
    chosen = [reader.clip_ids[i] for i in np.linspace(0, reader.num_clips - 1, NUM_PICTURES).astype(int)]
    pictures = draw_clips(reader, chosen, folder("runs") / "demo-pictures")
    reader.close()
    return DemoResult(extraction=extraction, rows=rows, table=table, pictures=pictures)


def mean_and_deviation(values: Sequence[float]) -> str:
    """Return "mean ± sample standard deviation" in percent."""
    percent = 100 * np.asarray(values)
    return f"{percent.mean():.1f} ± {percent.std(ddof=1) if len(percent) > 1 else 0.0:.1f}"


def markdown(rows: Sequence[DemoRow]) -> str:
    """Return the table as Markdown."""
    lines = [
        f"Test accuracy in percent, mean ± standard deviation over {len(SEEDS)} seeds. {PRESET_NOTE}",
        "",
        "| protocol | system | n | top-1 | each seed | top-5 | train top-1 |",
        "|---|---|---:|---:|---|---:|---:|",
    ]
    for r in rows:
        seeds = " ".join(f"{100 * v:.1f}" for v in r.top1)
        lines.append(
            f"| {r.protocol} | {r.system} | {r.n} | {mean_and_deviation(r.top1)} | {seeds} | "
            f"{mean_and_deviation(r.top5)} | {mean_and_deviation(r.train_top1)} |"
        )
    return "\n".join(lines) + "\n"


def _run_config(system: DemoSystem, cache: Path, protocol: str, seed: int) -> RunConfig:
    return make_run_config(
        system.head,
        cache,
        protocol=protocol,
        preset="small",
        streams=system.streams,
        aux_weight=system.aux_weight,
        schedule=SCHEDULE,
        seed=seed,
    )


def _fit_all(configs: Sequence[RunConfig], paths: Sequence[Path], progress: Progress, processes: int) -> None:
    """Train what is not finished, several runs at once, one thread each."""
    todo = []
    for config, path in zip(configs, paths, strict=True):
        if not is_finished(path):
            todo.append((config, path))
        elif not _same(config, open_run(path)):
            raise InputError(f"{path}: a finished run of another config; remove it, or run the demo elsewhere")
    if not todo:
        return
    progress.start(f"training {len(todo)} runs", len(todo))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(todo)), mp_context=context, initializer=_one_thread) as pool:
        futures = [pool.submit(_fit_one, config, path) for config, path in todo]
        try:
            for future in as_completed(futures):
                progress.advance(1, note=future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    progress.finish()


def _same(config: RunConfig, run: Run) -> bool:
    same: bool = {**to_plain(run.config), "fingerprint": "", "protocol_digest": ""} == to_plain(config)
    return same


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _fit_one(config: RunConfig, path: Path) -> str:
    """Train one run in a worker process; return a remark for the progress bar."""
    stopped = (path / "config.yaml").is_file() and read_config(path / "config.yaml") is not None
    result = fit(config, Silent(), out=path, resume=stopped)
    test = result.run.metric("test")
    assert test is not None
    return f"{path.name.removeprefix('demo-')}: {100 * test.top1:.1f}"


def _fuse(frame: Run, fused: Run) -> Run:
    path = folder("runs") / f"demo-ensemble-{fused.path.name.removeprefix('demo-')}"
    if is_finished(path):
        return open_run(path)
    return ensemble([frame.path, fused.path], out=path).run


def _row(label: str, protocol: str, runs: Sequence[Run]) -> DemoRow:
    tests = [m for r in runs if (m := r.metric("test")) is not None]
    trains = [m for r in runs if (m := r.metric("train")) is not None]
    return DemoRow(
        system=label,
        protocol=protocol,
        n=tests[0].n,
        top1=tuple(m.top1 for m in tests),
        top5=tuple(m.top5 for m in tests),
        train_top1=tuple(m.top1 for m in trains),
    )
