"""From folders to comparisons: those that `ifcar grid` wrote, and plain runs put together by their configs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ifcar.data_files import subfolders
from ifcar.errors import IfcarError, InputError, MissingDataError
from ifcar.heads.catalog import HEADS
from ifcar.pipelines.comparison.results import Replicate, ResultRow, System, summarise
from ifcar.pipelines.comparison.store import NAME as RESULTS
from ifcar.pipelines.comparison.store import Comparison, read_comparison
from ifcar.pipelines.folders import folder
from ifcar.pipelines.runs.config import EnsembleConfig, RunConfig, head_label, task_name, without_seed
from ifcar.pipelines.runs.differences import differences
from ifcar.pipelines.runs.facts import Facts, config_facts
from ifcar.pipelines.runs.finished import Run, finished_runs, is_finished, open_run, read_config


def gather(
    folders: Sequence[Path], *, baseline: str | None = None, opened: Callable[[Path], Run] = open_run
) -> list[Comparison]:
    """Read comparisons, and make one of the plain runs of each cache and protocol.

    Args:
        folders: comparison folders and run folders; none takes every comparison in the runs folder, or where there is
            none every finished run.
        baseline: name of the system that plain runs are tested against; default: the best simple one.
        opened: opens a run's folder.

    Raises:
        MissingDataError, InputError: a folder is neither, or there is nothing to report.
    """
    chosen = list(dict.fromkeys(folders)) or _default_folders()
    gathered, runs = [], []
    for path in chosen:
        if (path / RESULTS).is_file():
            gathered.append(_with_baseline(read_comparison(path), opened))
        elif is_finished(path):
            runs.append(opened(path))
        elif path.is_dir():
            raise InputError(
                f"{path}: neither a comparison (results.json, which `ifcar grid` writes) nor a finished run "
                "(metrics.json); `ifcar list runs` shows the finished runs"
            )
        else:
            raise MissingDataError(f"{path}: no such folder; name a run or a comparison, or none for all in runs/")
    return gathered + compare_runs(runs, baseline)


def _default_folders() -> list[Path]:
    root = folder("runs")
    found = [path for path in subfolders(root) if (path / RESULTS).is_file()] or [run.path for run in finished_runs()]
    if not found:
        raise InputError(
            f"{root}/ holds no comparison and no finished run; make them with `ifcar grid GRID` or "
            "`ifcar fit-head HEAD`, or name folders"
        )
    return found


def compare_runs(runs: Sequence[Run], baseline: str | None) -> list[Comparison]:
    """Return one comparison for each set of runs that were tested on the same clips of the same cache."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        clips = "\n".join(run.predictions("test").clip_ids.tolist())
        key = (run.config.fingerprint, task_name(run.config), hashlib.sha256(clips.encode()).hexdigest())
        groups.setdefault(key, []).append(run)
    return [_comparison(group, baseline) for group in groups.values()]


def _comparison(runs: Sequence[Run], baseline: str | None) -> Comparison:
    systems, notes = group_runs(runs)
    names = [system.name for system in systems]
    tested, said = (baseline, "") if baseline in names else simple_baseline(systems)
    config = runs[0].config
    dataset = str(dict(runs[0].data().identity).get("dataset", {}).get("name", "unknown data"))
    return Comparison(
        name=f"{dataset}-{task_name(config)}",
        title=f"Runs on {dataset}, {task_name(config)}",
        dataset=dataset,
        baseline=tested or "",
        paired_test="bootstrap",
        notes=(*notes, *([said] if said else [])),
        rows=tuple(summarise(systems, baseline=tested)),
        cache=str(config.cache),
        fingerprint=config.fingerprint,
    )


def _with_baseline(comparison: Comparison, opened: Callable[[Path], Run]) -> Comparison:
    """Return a comparison that names no baseline with one, tested again where its runs are at hand."""
    if comparison.baseline:
        return comparison
    try:
        systems = [_system(row, opened) for row in comparison.rows]
    except IfcarError:
        return comparison
    baseline, said = simple_baseline(systems)
    if baseline is None:
        return comparison
    rows = tuple(summarise(systems, baseline=baseline))
    return replace(comparison, baseline=baseline, paired_test="bootstrap", rows=rows, notes=(*comparison.notes, said))


def _system(row: ResultRow, opened: Callable[[Path], Run]) -> System:
    replicates = [Replicate(seed=seed, runs=own) for seed, own in zip(row.seeds, row.replicates(opened), strict=True)]
    return System(
        name=row.system, protocol=row.protocol, replicates=replicates, factors=row.factors, published=row.published
    )


def simple_baseline(systems: Sequence[System]) -> tuple[str | None, str]:
    """Return the best system whose head is simple, else the first, and a sentence that says so; None for one system."""
    names = list(dict.fromkeys(system.name for system in systems))
    if len(names) < 2:
        return None, ""
    scores: dict[str, list[float]] = {}
    for system in systems:
        runs = [run for replicate in system.replicates for run in replicate.runs]
        if all(run.config.head in HEADS.names() and HEADS.get(run.config.head).simple for run in runs):
            tested = [run.metric("test") for run in runs]
            scores.setdefault(system.name, []).extend(
                m.primary for m in tested if m is not None and m.primary is not None
            )
    best = max(scores, key=lambda name: sum(scores[name]) / max(1, len(scores[name])), default=None)
    if best is None:
        return names[0], f"no baseline is named: differences are to {names[0]}, the first, for no system is simple"
    return best, (
        f"no baseline is named: differences are to {best}, the best of the simple systems, which average and relate "
        "nothing"
    )


def group_runs(runs: Sequence[Run]) -> tuple[list[System], list[str]]:
    """Put runs that differ only in their seed together, in the order of the first of each; returns them and notes."""
    by_config: dict[str, dict[int, Run]] = {}
    notes = []
    for run in runs:
        seeds = by_config.setdefault(_key(run.config), {})
        seed = run.metrics[0].seed
        if seed in seeds:
            notes.append(f"left out: {seeds[seed].path}, which repeats the config and the seed of {run.path}")
        seeds[seed] = run
    systems: list[System] = []
    taken: dict[str, list[RunConfig | EnsembleConfig]] = {}
    for seeds in by_config.values():
        config = next(iter(seeds.values())).config
        same = taken.setdefault(system_name(config), [])
        same.append(config)
        name = system_name(config) if len(same) == 1 else f"{system_name(config)} ({len(same)})"
        if len(same) > 1:
            notes.append(f"{name} differs from {system_name(config)} in {_difference(config, same[0])}")
        systems.append(
            System(
                name=name,
                protocol=task_name(config),
                replicates=[Replicate(seed=seed, runs=[seeds[seed]]) for seed in sorted(seeds)],
                factors={"aux_weight": aux_weight(config)},
            )
        )
    return systems, notes


def _difference(config: RunConfig | EnsembleConfig, first: RunConfig | EnsembleConfig) -> str:
    """Return what a config has that another of its name has not, as "key value, not value"."""
    found = differences(Facts(facts=config_facts(config)), Facts(facts=config_facts(first)))
    said = [f"{d.fact.name.removeprefix('options.')} {d.a}, not {d.b}" for d in found if d.fact.kind != "seeds"]
    return "; ".join(said) or "nothing but where its files lie"


def system_name(config: RunConfig | EnsembleConfig) -> str:
    """Return a short readable name of a config, the same for every seed and protocol."""
    if isinstance(config, EnsembleConfig):
        members = [_member_config(member) for member in config.members]
        return " ⊕ ".join(Path(n).name if c is None else system_name(c) for n, c in members)
    aux = [f"{name} λ = {weight:g}" for name, weight in config.aux_weights.items()]
    tuned = "" if config.fine_tune is None else "fine-tuned"
    if config.live is not None:
        tuned = "end to end" if config.live.base is None else "jointly with the backbone"
    return ", ".join(part for part in (config.head, head_label(config), *aux, config.preset, tuned) if part)


def aux_weight(config: RunConfig | EnsembleConfig) -> float:
    """Return the weight λ of a config's only auxiliary loss; 0 where there is none or more than one."""
    weights = [] if isinstance(config, EnsembleConfig) else list(config.aux_weights.values())
    return float(weights[0]) if len(weights) == 1 else 0.0


def _member_config(member: str) -> tuple[str, RunConfig | EnsembleConfig | None]:
    try:
        return member, read_config(Path(member) / "config.yaml")
    except (IfcarError, OSError):
        return member, None


def _key(config: RunConfig | EnsembleConfig) -> str:
    """Return everything that decides the numbers of a config's runs, but not the seed, as text."""
    if isinstance(config, EnsembleConfig):
        members = [name if c is None else _key(c) for name, c in map(_member_config, config.members)]
        weights = [] if config.chosen_on == "held_out" else list(config.weights)
        return json.dumps(["ensemble", members, config.chosen_on, weights])
    return json.dumps(without_seed(config), sort_keys=True, ensure_ascii=False)


def family(config: RunConfig | EnsembleConfig) -> str:
    """Return what a config shares with those that differ from it in the auxiliary loss, or in the seed, only."""
    if isinstance(config, EnsembleConfig):
        return _key(config)
    return _key(replace(config, aux_weights={}))


def view_family(config: RunConfig) -> str:
    """Return what a config shares with those that differ in the views that they use, or in the seed, only."""
    return _key(replace(config, views=None, augmented_views=None))
