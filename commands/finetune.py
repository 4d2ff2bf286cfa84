"""`ifcar finetune i3d` and `ifcar finetune joint`: the backbone trained with a head on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ifcar.commands.options import Aux, Device, Json, aux_weights_from, print_metrics, refuse_beside_config, say
from ifcar.console import Screen, print_json
from ifcar.errors import InputError
from ifcar.shell_words import command

if TYPE_CHECKING:
    from ifcar.pipelines.extraction.sources import ExtractConfig
    from ifcar.pipelines.finetune.run import FinetuneResult
    from ifcar.pipelines.runs.config import RunConfig

DataRoot = Annotated[Path | None, typer.Option(help="The dataset's folder; default: data/DATASET.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training clips.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Optimiser steps, in place of --epochs.")]
BatchSize = Annotated[int | None, typer.Option(help="Clips per step, over all processes.")]
MicroBatch = Annotated[
    int | None, typer.Option(help="Clips at once in each process, where memory is short; same gradients.")
]
Rate = Annotated[float | None, typer.Option(help="Learning rate of the backbone.")]
HeadRate = Annotated[float | None, typer.Option(help="Learning rate of head and reduction; default: --lr.")]
Decay = Annotated[float | None, typer.Option(help="L2 factor; default: 1e-4.")]
WarmUp = Annotated[int | None, typer.Option(help="Steps over which the learning rates rise.")]
ClipGradient = Annotated[float | None, typer.Option(help="Largest norm of the gradient.")]
FreezeTo = Annotated[str | None, typer.Option(help="Last stage that stays as it is: res3, Mixed_3c, ….")]
BatchNorm = Annotated[str | None, typer.Option(help="frozen (default), or train: statistics move, one process only.")]
Cropping = Annotated[str | None, typer.Option(help="Training crops: area, scale-jitter or multi-scale.")]
Flip = Annotated[bool | None, typer.Option("--flip", help="Mirror augmented views, if the dataset allows it.")]
HeldOut = Annotated[
    float | None, typer.Option(help="Share of training clips that choose the best weights; default: 0.")
]
Precision = Annotated[str | None, typer.Option(help="fp32 (default), or bf16 for the products of training.")]
Recompute = Annotated[
    bool | None, typer.Option("--checkpointing", help="Gradient checkpointing: less memory, a third more time.")
]
Workers = Annotated[int | None, typer.Option(help="Decoding processes of each training process.")]
Out = Annotated[Path | None, typer.Option(help="Run folder; default: a fresh one in runs/.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the stopped run in --out.")]
ConfigFile = Annotated[Path | None, typer.Option(help="A run's config.yaml; excludes the options of training.")]

app = typer.Typer(
    help="Train the backbone, alone or with a head from a cache; its file goes back to `ifcar extract --weights`. "
    "Several GPUs: `torchrun --nproc-per-node N --no-python ifcar finetune …`.",
    no_args_is_help=True,
)


@app.command("i3d")
def finetune_i3d(
    context: typer.Context,
    dataset: Annotated[str | None, typer.Option(help="One of `ifcar list datasets`; not with --config.")] = None,
    data_root: DataRoot = None,
    protocol: Annotated[str | None, typer.Option(help="Default: compositional, or the only one.")] = None,
    preset: Annotated[str, typer.Option(help="paper (Yan et al. 2020) or wang-gupta (2018, 100,000 steps).")] = "paper",
    backbone: Annotated[str | None, typer.Option(help="One of `ifcar list backbones`; default: i3d_r50.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE: an option of the backbone's own; may be repeated.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="To begin with, as `ifcar extract` takes them.")] = None,
    frames: Annotated[int | None, typer.Option(help="T; default: 8 (wang-gupta: 32).")] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the crop in pixels; default: the dataset's.")] = None,
    instances: Annotated[int | None, typer.Option(help="N, of the cache that is to follow; default: 4.")] = None,
    spatial_stride: Annotated[
        int | None, typer.Option(help="Pixels a cell of the feature map; default: the backbone's first.")
    ] = None,
    pooled: Annotated[str | None, typer.Option(help="RoIAlign of the cache that is to follow: 3 or 7-max.")] = None,
    views: Annotated[int | None, typer.Option(help="V, plain views that scores are averaged over; default: 1.")] = None,
    framing: Annotated[str | None, typer.Option(help="Plain views: stretch or center.")] = None,
    cropping: Cropping = None,
    flip: Flip = None,
    reduction: Annotated[int | None, typer.Option(help="Channels of the 1×1×1 convolution on top; 0: none.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Before the classifier; default: 0.3.")] = None,
    epochs: Epochs = None,
    num_steps: Steps = None,
    batch_size: BatchSize = None,
    micro_batch: MicroBatch = None,
    lr: Rate = None,
    head_lr: HeadRate = None,
    weight_decay: Decay = None,
    warm_up: WarmUp = None,
    clip_gradient: ClipGradient = None,
    freeze_to: FreezeTo = None,
    batch_norm: BatchNorm = None,
    held_out: HeldOut = None,
    precision: Precision = None,
    recompute: Recompute = None,
    seed: Annotated[int, typer.Option(help="Of new weights, order, views and dropout.")] = 0,
    config: ConfigFile = None,
    workers: Workers = None,
    device: Device = None,
    out: Out = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train the I3D baseline end to end: backbone, 1×1×1 reduction, mean, dropout, linear layer."""
    values = dict(locals())
    from ifcar.pipelines.configs import parse_assignment
    from ifcar.pipelines.finetune.start import i3d_config

    chosen = _from_file(context, config, out, resume=resume, named=dataset)
    if chosen is None:
        if dataset is None:
            raise InputError("name a dataset with --dataset (`ifcar list datasets`), or give --config")
        options = dict(parse_assignment(setting) for setting in settings or ())
        given = {key: value for key, value in values.items() if key not in (*_NOT_IN_CONFIG, "settings")}
        chosen = i3d_config(**given, backbone_options=options)
    _run(chosen, out, resume=resume, device=device, workers=workers, as_json=as_json)


@app.command("joint")
def finetune_joint(
    context: typer.Context,
    head: Annotated[Path | None, typer.Option(help="Run whose head is trained on; not with --config.")] = None,
    data_root: DataRoot = None,
    weights: Annotated[
        str | None, typer.Option(help="The backbone's, with which the run's cache was made; default: published.")
    ] = None,
    preset: Annotated[str, typer.Option(help="paper (Yan et al. 2020) or wang-gupta (2018, 30,000 steps).")] = "paper",
    frames: Annotated[int | None, typer.Option(help="T; must be the head's, which is the default.")] = None,
    instances: Annotated[int | None, typer.Option(help="N; must be the head's, which is the default.")] = None,
    aux: Aux = None,
    cropping: Cropping = None,
    flip: Flip = None,
    epochs: Epochs = None,
    num_steps: Steps = None,
    batch_size: BatchSize = None,
    micro_batch: MicroBatch = None,
    lr: Rate = None,
    head_lr: HeadRate = None,
    weight_decay: Decay = None,
    warm_up: WarmUp = None,
    clip_gradient: ClipGradient = None,
    freeze_to: FreezeTo = None,
    batch_norm: BatchNorm = None,
    held_out: HeldOut = None,
    precision: Precision = None,
    recompute: Recompute = None,
    seed: Annotated[int | None, typer.Option(help="Of order, views and dropout; default: the head's run's.")] = None,
    config: ConfigFile = None,
    workers: Workers = None,
    device: Device = None,
    out: Out = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train the head of a finished run together with the backbone that its cache was made with, on live features."""
    values = dict(locals())
    from ifcar.pipelines.finetune.start import joint_config

    chosen = _from_file(context, config, out, resume=resume, named=head)
    if chosen is None:
        if head is None:
            raise InputError("name the run whose head to train on with --head RUN, or give --config")
        options = {key: value for key, value in values.items() if key not in (*_NOT_IN_CONFIG, "head", "aux")}
        chosen = joint_config(head, aux_weights=aux_weights_from(aux), **options)
    _run(chosen, out, resume=resume, device=device, workers=workers, as_json=as_json)


_NOT_IN_CONFIG = ("context", "config", "workers", "device", "out", "resume", "as_json")


def _from_file(
    context: typer.Context, config: Path | None, out: Path | None, *, resume: bool, named: object
) -> RunConfig | None:
    """Return the config of --config, or of the run to resume; None where the options make it."""
    from ifcar.pipelines.runs.config import RunConfig
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
    config: RunConfig, out: Path | None, *, resume: bool, device: str | None, workers: int | None, as_json: bool
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
    say(f"Next: {extract_command(result)}, then heads on that cache.")


def extract_command(result: FinetuneResult) -> str:
    """Return the command that makes the cache of a fine-tuned backbone, for a message."""
    chosen: ExtractConfig = result.extraction
    parts: list[Any] = ["ifcar", "extract", "--dataset", chosen.dataset]
    for option in ("data_root", "backbone", "weights", "frames", "crop", "instances", "spatial_stride", "pooled"):
        value = getattr(chosen, option)
        if value is not None:
            parts += [f"--{option.replace('_', '-')}", value]
    for key, value in chosen.backbone_options.items():
        parts += ["--set", f"{key}={value}"]
    parts += ["--framing", chosen.framing, "--views", chosen.views, *(["--grid"] if chosen.grid else [])]
    return command(*parts, "--out", chosen.out)
