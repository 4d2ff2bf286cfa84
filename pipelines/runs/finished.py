"""Run folders: what a finished run holds, and finding runs.

config.yaml         everything needed to repeat the run, with the cache's fingerprint; above it how it was trained
plugin.json         where its head, backbone and data set come from, when these are plugins
data.json           what it was trained on: cache dimensions and identity, class names
model.safetensors   the weights (not in an ensemble)
history.jsonl       one line a round
tasks.json, tasks.npz   what it says in each of several tasks, see `ifcar.pipelines.runs.tasks`
predictions.npz     SPLIT/clip_ids, SPLIT/logits, SPLIT/targets for every evaluated part, SPLIT/segments where clips
                    share them, and SPLIT/groups where clips of one are not independent
metrics.json        one record a part; written last: a run with it is finished
"""

from __future__ import annotations

import io
import itertools
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ifcar.cache.durable import write_atomic
from ifcar.cache.npz import NpzError, read_arrays
from ifcar.data_files import subfolders
from ifcar.errors import IfcarError, InputError, MissingDataError
from ifcar.pipelines.configs import from_plain, read_yaml, to_plain
from ifcar.pipelines.folders import folder
from ifcar.pipelines.runs.config import (
    ENSEMBLE,
    EnsembleConfig,
    RunConfig,
    check_resumable,
    without_loss_switches,
)
from ifcar.pipelines.runs.data import RunData, read_run_data
from ifcar.pipelines.runs.places import absolute_places, located_places
from ifcar.pipelines.runs.plugin_notes import advise_on_plugins, note_plugins
from ifcar.pipelines.scoring.scores import Metrics, Predictions
from ifcar.shell_words import command
from ifcar.text_files import read_text

logger = logging.getLogger(__name__)
TOGETHER = ("segments", "groups")  # of `Predictions`; absent where each clip is its own


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Args:
        path: its folder.
        config: what decided its numbers.
        metrics: one of every evaluated part.
        shown: what it was trained on, where that is not what its folder says: as one task of several.
    """

    path: Path
    config: RunConfig | EnsembleConfig
    metrics: Sequence[Metrics]
    shown: RunData | None = field(default=None, repr=False, compare=False)
    _read: dict[str, Predictions] = field(default_factory=dict, init=False, repr=False, compare=False)

    def metric(self, split: str) -> Metrics | None:
        """Return the metrics of a part, or None when it was not evaluated."""
        return next((m for m in self.metrics if m.split == split), None)

    def data(self) -> RunData:
        """Read what the run was trained on. Raises InputError when its file is missing or damaged."""
        return self.shown or read_run_data(self.path)

    def predictions(self, split: str) -> Predictions:
        """Return the predictions of a part; they are read once, and kept as long as the run.

        Raises:
            InputError: the run has none for it, or the file is damaged.
        """
        if split not in self._read:
            self._read[split] = self._read_predictions(split)
        return self._read[split]

    def showing(self, predictions: Predictions) -> Run:
        """Return the run with other predictions of a part, as of changed clips; its files stay as they are."""
        shown = replace(self)
        shown._read[predictions.split] = predictions
        return shown

    def _read_predictions(self, split: str) -> Predictions:
        path = self.path / "predictions.npz"
        names = [f"{split}/{name}" for name in ("clip_ids", "logits", "targets")]
        together = {name: f"{split}/{name}" for name in TOGETHER}
        try:
            found = read_arrays(path, names, list(together.values()))
        except KeyError as error:
            raise InputError(f"{path}: holds no predictions for {split!r}") from error
        except NpzError as error:
            raise InputError(f"{path}: cannot be read ({error}); remove the folder and make the run again") from error
        clip_ids, logits, targets = (found[name] for name in names)
        if logits.ndim != 2 or len({len(array) for array in found.values()}) > 1 or not np.isfinite(logits).all():
            raise InputError(
                f"{path}: logits {logits.shape} of {len(clip_ids)} clips and {len(targets)} targets do not belong "
                "together or are not finite; remove the folder and make the run again"
            )
        return Predictions(
            split=split,
            clip_ids=clip_ids,
            **{name: found.get(stored) for name, stored in together.items()},
            logits=logits,
            targets=targets,
            kind=self.data().kind,
        )


def write_config(path: Path, config: RunConfig | EnsembleConfig) -> None:
    """Write config.yaml, with every place named from the root, so that the run is of use in any working folder."""
    content = to_plain(absolute_places(config))
    write_atomic(path / "config.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())
    note_plugins(path, {"head": config.head})


def write_remark(path: Path, lines: Sequence[str]) -> None:
    """Put lines on how the run was made above its config, as comments: they are no options, and change no run's id."""
    file = path / "config.yaml"
    kept = [line for line in read_text(file).splitlines(keepends=True) if not line.startswith("#")]
    write_atomic(file, "".join([*(f"# {line}\n" for line in lines), *kept]).encode())


def read_remark(file: Path) -> list[str]:
    """Return the lines that `write_remark` put above a config."""
    lines = read_text(file).splitlines() if file.is_file() else []
    return [line.removeprefix("#").strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]


def write_results(path: Path, predictions: Sequence[Predictions], metrics: Sequence[Metrics]) -> None:
    """Write predictions.npz, then metrics.json."""
    arrays: dict[str, Any] = {}
    for p in predictions:
        arrays |= {f"{p.split}/clip_ids": p.clip_ids, f"{p.split}/logits": p.logits, f"{p.split}/targets": p.targets}
        own = {name: getattr(p, name) for name in TOGETHER}
        arrays |= {f"{p.split}/{name}": array for name, array in own.items() if array is not None}
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomic(path / "predictions.npz", content.getvalue())
    write_atomic(path / "metrics.json", (json.dumps([m.record() for m in metrics], indent=1) + "\n").encode())


def write_history(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write history.jsonl whole."""
    write_atomic(path / "history.jsonl", "".join(json.dumps(record) + "\n" for record in history).encode())


def is_finished(path: Path) -> bool:
    """Return whether the folder holds a finished run."""
    return (path / "metrics.json").is_file()


def read_config(path: Path) -> RunConfig | EnsembleConfig:
    """Read a config file; what it names is looked for beside it too, see `ifcar.pipelines.runs.places`.

    Raises:
        InputError: an unknown key or a wrong value; names it.
    """
    content = read_yaml(path)
    advise_on_plugins(path.parent)
    fused = isinstance(content, Mapping) and content.get("head") == ENSEMBLE
    if fused:
        return located_places(from_plain(EnsembleConfig, content, str(path)), path.parent)
    config = from_plain(RunConfig, content, str(path))
    options = without_loss_switches(config.head, config.options, config.aux_weights)
    return located_places(replace(config, options=options), path.parent)


def open_run(path: Path) -> Run:
    """Open a finished run.

    Raises:
        MissingDataError: no such folder, or the run is not finished.
        InputError: a file in it is damaged.
    """
    if not path.is_dir():
        raise MissingDataError(f"{path}: no such run; `ifcar list runs` shows those in {folder('runs')}/")
    if not (path / "config.yaml").is_file():
        raise MissingDataError(
            f"{path}: not a finished run, it holds no config.yaml; `ifcar list runs` shows those in {folder('runs')}/"
        )
    if not is_finished(path):
        raise MissingDataError(f"{path}: not a finished run (no metrics.json); go on with {_resuming(path)}")
    try:
        metrics = [Metrics(**record) for record in json.loads(read_text(path / "metrics.json"))]
    except (TypeError, ValueError) as error:
        file = path / "metrics.json"
        raise InputError(f"{file}: damaged ({error}); remove the folder and make the run again") from error
    return Run(path=path, config=read_config(path / "config.yaml"), metrics=metrics)


def _resuming(path: Path) -> str:
    """Return the command that goes on with a stopped run."""
    config = read_config(path / "config.yaml")
    if not isinstance(config, RunConfig) or config.live is None:
        return command("ifcar", "fit-head", "--resume", "--out", path)
    kind = "i3d" if config.live.base is None else "joint"
    return command("ifcar", "finetune", kind, "--resume", "--out", path)


def finished_runs(runs: Path | None = None) -> list[Run]:
    """Return the finished runs below the runs folder, oldest first; one that cannot be read is said and left out."""
    root = folder("runs") if runs is None else runs
    found = []
    for path in filter(is_finished, subfolders(root)):
        try:
            found.append(open_run(path))
        except IfcarError as error:
            logger.warning("left out of the runs in %s/: %s", root, error)
    return sorted(found, key=lambda run: ((run.path / "metrics.json").stat().st_mtime_ns, run.path.name))


def check_folder(path: Path, *, resume: bool) -> None:
    """Raise InputError unless a run's folder is new, or holds a stopped run where one is to be resumed."""
    stopped = (path / "config.yaml").is_file()
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; name a folder with --out")
    if is_finished(path):
        raise InputError(f"{path}: holds a finished run; name another --out")
    if stopped and not resume:
        raise InputError(f"{path}: holds a run that was stopped; go on with --resume, or name another --out")
    if resume and not stopped:
        raise InputError(f"{path}: no stopped run to resume")


def claim_folder(path: Path, config: RunConfig, *, unknown: Collection[str] = ()) -> None:
    """Make a run's folder, or check that the stopped run in it is of this config, see `check_resumable`."""
    if (path / "config.yaml").is_file():
        check_resumable(path, read_config(path / "config.yaml"), config, unknown=unknown)
        return
    path.mkdir(parents=True, exist_ok=True)
    write_config(path, config)


def fresh_folder(name: str) -> Path:
    """Return a run folder that does not exist yet, NAME or NAME-2 or a later one."""
    root = folder("runs")
    path, number = root / name, 1
    while path.exists():
        number += 1
        path = root / f"{name}-{number}"
    return path
