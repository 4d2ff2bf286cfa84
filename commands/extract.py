"""`ifcar extract`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ifcar.commands.options import Address, Device, Engine, Json, refuse_ignored, say
from ifcar.console import Screen, print_json, print_table
from ifcar.shell_words import command

ENGINE_OPTIONS = ("engine", "address", "actor_cpus", "as_json")
OF_PIXELS = ("spatial_stride", "pooled", "grid", "crop", "precision", "compile_", "batch_size", "device")
OF_AUGMENTED = ("flip", "seed")


def extract(
    context: typer.Context,
    dataset: Annotated[str, typer.Option(help="One of `ifcar list datasets`.")],
    data_root: Annotated[Path | None, typer.Option(help="The dataset's folder; default: data/DATASET.")] = None,
    out: Annotated[Path | None, typer.Option(help="The cache; default: caches/DATASET-BACKBONE.zarr.")] = None,
    backbone: Annotated[str, typer.Option(help="One of `ifcar list backbones`; none reads no pixels.")] = "i3d_r50",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE: an option of the backbone's own; may be repeated.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="A file or folder, published (or one of the tags of `ifcar list backbones`), or random:SEED; default: "
            "published (toybox: random:0)."
        ),
    ] = None,
    frames: Annotated[int, typer.Option(help="T, frames sampled for a view.")] = 8,
    sampling: Annotated[
        str | None,
        typer.Option(
            help="Where a view's frames come from: segments (T equal parts of the clip), annotated (of its annotated "
            "frames) or rate; default: the dataset's."
        ),
    ] = None,
    sampling_fps: Annotated[
        float | None, typer.Option(help="T frames at so many a second: 32 at 6 cover 5.3 s. Implies --sampling rate.")
    ] = None,
    sampling_rates: Annotated[
        str | None,
        typer.Option(help="T frames, one of every r of the source; the views share the rates: 2,4,8. Implies rate."),
    ] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the crop in pixels; default: 224 (toybox: 112).")] = None,
    views: Annotated[int, typer.Option(help="V, plain views of every clip; scores are averaged over them.")] = 1,
    augmented_views: Annotated[
        int, typer.Option(help="A, further views of training clips, drawn at random; for training only.")
    ] = 0,
    instances: Annotated[int, typer.Option(help="N, instance slots: subjects first, then the longest tracks.")] = 4,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Boxes without classes, of any number a frame, in place of the dataset's: .json "
            "{clip: {frame from 1: [[x1, y1, x2, y2(, score)], …]}} or .npz (clip, frame, box(, score))."
        ),
    ] = None,
    spatial_stride: Annotated[
        int | None, typer.Option(help="Pixels a cell of the feature map; default: the backbone's first.")
    ] = None,
    pooled: Annotated[str, typer.Option(help="RoIAlign bins: 3, or 7-max (7×7, max-pooled to one).")] = "3",
    grid: Annotated[bool, typer.Option("--grid", help="Store the feature map itself as well.")] = False,
    framing: Annotated[str, typer.Option(help="Plain views: stretch (whole frame) or center (square).")] = "stretch",
    flip: Annotated[bool, typer.Option("--flip", help="Mirror half of the augmented views.")] = False,
    seed: Annotated[int, typer.Option(help="Of the augmented views.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Views per forward pass.")] = 8,
    workers: Annotated[int | None, typer.Option(help="Decoding processes; default: one a core, at most 8.")] = None,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    compile_: Annotated[
        bool, typer.Option("--compile", help="torch.compile the backbone: slower to begin, faster on many clips.")
    ] = False,
    device: Device = None,
    engine: Engine = "local",
    address: Address = None,
    actor_cpus: Annotated[
        int | None, typer.Option(help="With ray: cores of one actor; default: a node's, shared among its GPUs.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many clips.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed clips again.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove a cache that is in the way.")] = False,
    as_json: Json = False,
) -> None:
    """Run the backbone once over every clip and write the cache; interrupted and run again, it goes on."""
    values = {k.rstrip("_"): v for k, v in locals().items() if k not in (*ENGINE_OPTIONS, "context")}
    from ifcar.extract.backbones.catalog import get_backbone
    from ifcar.pipelines.configs import parse_assignment
    from ifcar.pipelines.engines.choice import cluster_config, extract_engine
    from ifcar.pipelines.extract import extract as run_extract
    from ifcar.pipelines.extraction.sources import ExtractConfig, parse_rates
    from ifcar.pipelines.folders import cache_paths

    reads_nothing = get_backbone(backbone).build is None
    if reads_nothing:
        refuse_ignored(
            context, OF_PIXELS, f"--backbone {backbone} reads no pixels; leave it out, or name another backbone"
        )
    if augmented_views == 0:
        refuse_ignored(
            context, OF_AUGMENTED, "no view is augmented; leave it out, or ask for some with --augmented-views"
        )
    chosen = extract_engine(cluster_config(engine, address, actor_cpus))
    values["backbone_options"] = dict(parse_assignment(setting) for setting in values.pop("settings") or ())
    values["sampling_rates"] = parse_rates(sampling_rates)
    result = run_extract(ExtractConfig(**values), Screen(quiet=as_json), chosen)
    if as_json:
        print_json(asdict(result))
    else:
        for note in result.notes[:20]:
            say(f"note: {note}")
        if len(result.notes) > 20:
            say(f"note: … and {len(result.notes) - 20} more (all with --json)")
        print_table(
            str(result.cache),
            ["clips", "rows", "computed now", "failed"],
            [[str(v) for v in (result.num_clips, result.num_rows, result.num_computed, result.num_failed)]],
        )
        named = [] if cache_paths() == [result.cache] else ["--cache", result.cache]
        streams = ["--streams", "layout"] if reads_nothing else []
        if result.has_boxes:
            step = command("ifcar", "fit-head", "sfi", *named, *streams, "--aux-weight", 5)
        elif reads_nothing:
            step = "extract with boxes (the data set's, or --boxes FILE), or with a backbone that reads pixels"
        else:
            step = command("ifcar", "fit-head", "i3d", *named)
        root = [] if data_root is None else ["--data-root", data_root]
        say(f"Next: {step}, or {command('ifcar', 'cache', 'show', result.cache, *root)} for pictures.")
    if result.num_failed:
        say(f"{result.num_failed} rows failed; reasons in {result.failures_file}; try again with --retry-failed")
        raise typer.Exit(1)
