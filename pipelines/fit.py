"""`ifcar fit-head`: train one head from a cache, and evaluate it."""

from __future__ import annotations

from pathlib import Path

from ifcar.config_fields import path_of
from ifcar.errors import InputError
from ifcar.pipelines.feed.memory import Memory
from ifcar.pipelines.progress import Progress, Silent
from ifcar.pipelines.runs.config import RunConfig, run_name
from ifcar.pipelines.runs.finished import check_folder, fresh_folder
from ifcar.pipelines.training.jobs import FailedRun, Job
from ifcar.pipelines.training.together import FitResult, fit_together
from ifcar.pipelines.training.trainer import NonFiniteError
from ifcar.shell_words import command


def fit(
    config: RunConfig,
    progress: Progress = Silent(),
    *,
    out: Path | str | None = None,
    resume: bool = False,
    device: str | None = None,
    memory: Memory = "auto",
) -> FitResult:
    """Train a head, evaluate it on the training and test parts, and write its run folder.

    Args:
        config: what to train on what.
        progress: told about every round.
        out: run folder; default: a fresh one named after the config.
        resume: go on with a stopped run of the same config in `out`.
        device: default: cuda where there is one.
        memory: see `BatchReader`.

    Raises:
        InputError, CacheMismatchError: config, cache and folder do not go together.
        NonFiniteError: the loss stopped being a number.
    """
    if config.live is not None:
        raise InputError("this config is of a fine-tuned run; train it with `ifcar finetune`, --config")
    path = fresh_folder(run_name(config)) if out is None else path_of(out, "out")
    check_folder(path, resume=resume)
    try:
        (result,) = fit_together([Job(config=config, path=path)], path, progress, device=device, memory=memory)
    except KeyboardInterrupt:
        resume_it = command("ifcar", "fit-head", "--resume", "--out", path)
        progress.say(f"{path}: stopped; {resume_it} goes on from its last checkpoint")
        raise
    if isinstance(result, FailedRun):
        raise NonFiniteError(result.reason)
    return result
