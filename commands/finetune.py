"""`ifcar finetune i3d` and `ifcar finetune joint`: the backbone trained with a head on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ifcar.commands.config_options import Given, OptionsOf, reading, with_config_options
from ifcar.commands.options import (
    ConfigFile,
    Json,
    Resume,
    RunFolder,
    print_metrics,
    refuse_beside_config,
    say,
)
from ifcar.config_fields import words_of
from ifcar.console import Screen, print_json
from ifcar.errors import InputError
from ifcar.pipelines.grid.lines import SystemConfig
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.live import LiveConfig, LiveData
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.training.machine import MachineConfig
from ifcar.shell_words import command

CONFIGS = LiveData, LiveConfig, ScheduleConfig, RunConfig
NOT_LIVE = ("dataset", "preset", "kind", "min_steps", "refit", "label_smoothing")
"""Fields that a fine-tuning does not have, or that its commands ask for in words of their own."""
OF_CACHE = (
    "protocol",
    "labels",
    "backbone",
    "backbone_options",
    "crop",
    "views",
    "spatial_stride",
    "pooled",
    "framing",
    "background",
    "sampling",
    "sampling_fps",
    "sampling_rates",
)
"""Fields that the cache states which a head was trained from."""
STATED = dict.fromkeys(
    ("frames", "views", "framing", "sampling_fps", "pool", "cropping", "epochs", "num_steps", "batch_size", "lr"),
    "the preset's",
)
STATED |= {"held_out": "0", "protocol": "compositional, or the only one"}
BY_HEAD = {"frames": "the head's, as it must be", "instances": "the head's, as it must be", "seed": "the head's run's"}

Workers = Annotated[
    int | None, typer.Option(help="Decoding processes of each training process.", **reading("--workers", int))
]


@with_config_options
def finetune_i3d(
    context: typer.Context,
    *,
    dataset: Annotated[str | None, typer.Option(help="One of `ifcar list datasets`; not with --config.")] = None,
    preset: Annotated[str, typer.Option(help="paper (Yan et al. 2020) or wang-gupta (2018, 100,000 steps).")] = "paper",
    options: Annotated[Given, OptionsOf(*CONFIGS, without=(*NOT_LIVE, "background"), stated=STATED)],
    dropout: Annotated[
        float | None, typer.Option(help="Before the classifier; default: 0.3.", **reading("--dropout", float))
    ] = None,
    config: ConfigFile = None,
    workers: Workers = None,
    machine: Annotated[Given, OptionsOf(MachineConfig, only=("device",))],
    out: RunFolder = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train the I3D baseline end to end: backbone, 1×1×1 reduction, mean, dropout, linear layer."""
    from ifcar.pipelines.finetune.start import i3d_config

    chosen = _from_file(context, config, out, resume=resume, named=dataset)
    if chosen is None:
        if dataset is None:
            raise InputError("name a dataset with --dataset (`ifcar list datasets`), or give --config")
        chosen = i3d_config(dataset, preset=preset, dropout=dropout, **options.read())
    _run(chosen, out, resume=resume, workers=workers, as_json=as_json, **machine.read())


@with_config_options
def finetune_joint(
    context: typer.Context,
    *,
    head: Annotated[Path | None, typer.Option(help="Run whose head is trained on; not with --config.")] = None,
    preset: Annotated[str, typer.Option(help="paper (Yan et al. 2020) or wang-gupta (2018, 30,000 steps).")] = "paper",
    options: Annotated[
        Given, OptionsOf(*CONFIGS, without=(*NOT_LIVE, *OF_CACHE, "reduction"), stated=STATED | BY_HEAD)
    ],
    aux: Annotated[Given, OptionsOf(SystemConfig, only=("aux_weights",))],
    config: ConfigFile = None,
    workers: Workers = None,
    machine: Annotated[Given, OptionsOf(MachineConfig, only=("device",))],
    out: RunFolder = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train the head of a finished run together with the backbone that its cache was made with, on live features."""
    from ifcar.pipelines.finetune.start import joint_config

    chosen = _from_file(context, config, out, resume=resume, named=head)
    if chosen is None:
        if head is None:
            raise InputError("name the run whose head to train on with --head RUN, or give --config")
        chosen = joint_config(head, preset=preset, **aux.read(), **options.read())
    _run(chosen, out, resume=resume, workers=workers, as_json=as_json, **machine.read())


_NOT_IN_CONFIG = ("context", "config", "workers", "device", "out", "resume", "as_json")


def _from_file(
    context: typer.Context, config: Path | None, out: Path | None, *, resume: bool, named: object
) -> RunConfig | None:
    """Return the config of --config, or of the run to resume; None where the options make it."""
    from ifcar.pipelines.runs.finished import read_config

    if resume and out is None:
        raise InputError("--resume needs --out, the folder of the stopped run")
    if config is None and not (resume and named is None and out is not None):
        return None
    source = config or Path(str(out)) / "config.yaml"
    read = read_config(source)
    if named is not None or not isinstance(read, RunConfig):
        raise InputError(f"{source}: give a fine-tuning's config alone, without --dataset or --head")
    refuse_beside_config(context, source, _NOT_IN_CONFIG)
    return read


def _run(
    config: RunConfig, out: Path | None, *, resume: bool, workers: int | None, as_json: bool, device: str | None = None
) -> None:
    from ifcar.pipelines.finetune.distributed import process_number
    from ifcar.pipelines.finetune.run import finetune

    result = finetune(config, Screen(quiet=as_json), out=out, resume=resume, device=device, workers=workers)
    if process_number():
        return
    used = f"{result.plan.num_steps:,} steps of batch {result.plan.batch_size}"
    if result.best_step is not None:
        used += f"; weights of step {result.best_step:,}, chosen on the held-out part of the training split"
    if as_json:
        made = {"run": result.run.path, "backbone": result.backbone, "schedule": used}
        metrics = [m.record() for m in result.run.metrics]
        print_json({**made, "metrics": metrics, "notes": result.run.data().notes})
        return
    print_metrics(result.run)
    say(f"Used: {used}.")
    say(f"Next: {command('ifcar', 'extract', *words_of(result.extraction))}, then heads on that cache.")
