"""`ifcar extract`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ifcar.commands.config_options import Given, OptionsOf, with_config_options
from ifcar.commands.options import MOST_NOTES, Json, refuse_ignored, say, say_notes
from ifcar.console import Screen, print_json, print_table
from ifcar.counts import count_of
from ifcar.pipelines.engines.cluster import EngineConfig, RayConfig
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.shell_words import command

OF_PIXELS = ("spatial_stride", "pooled", "grid", "grid_pool", "crop", "precision", "compile", "batch_size", "device")
OF_AUGMENTED = ("flip", "seed")


@with_config_options
def extract(
    context: typer.Context,
    options: Annotated[Given, OptionsOf(ExtractConfig)],
    engine: Annotated[Given, OptionsOf(EngineConfig, RayConfig)],
    as_json: Json = False,
) -> None:
    """Run the backbone once over every clip and write the cache; interrupted and run again, it goes on."""
    from ifcar.extract.backbones.catalog import get_backbone
    from ifcar.extract.datasets.catalog import DATASETS
    from ifcar.pipelines.engines.choice import cluster_config, extract_engine
    from ifcar.pipelines.extract import extract as run_extract
    from ifcar.pipelines.folders import default_caches

    backbone: str = context.params["backbone"] or DATASETS.get(context.params["dataset"]).default_backbone
    reads_nothing = get_backbone(backbone).build is None
    if reads_nothing:
        why = f"--backbone {backbone} reads no pixels; leave it out, or name another backbone"
        refuse_ignored(context, OF_PIXELS, why)
    if not context.params["grid"]:
        refuse_ignored(context, ("grid_pool",), "it is of the stored map; leave it out, or store that with --grid")
    if context.params["augmented_views"] == 0:
        why = "no view is augmented; leave it out, or ask for some with --augmented-views"
        refuse_ignored(context, OF_AUGMENTED, why)
    config = ExtractConfig(**options.read())
    chosen = extract_engine(cluster_config(engine.read()))
    result = run_extract(config, Screen(quiet=as_json), chosen)
    if as_json:
        print_json(asdict(result))
    else:
        say_notes(result.notes, MOST_NOTES)
        print_table(
            str(result.cache),
            ["clips", "rows", "computed now", "failed"],
            [[str(v) for v in (result.num_clips, result.num_rows, result.num_computed, result.num_failed)]],
        )
        named = [] if default_caches() == [result.cache] else ["--cache", result.cache]
        named += [] if result.protocol is None else ["--protocol", result.protocol]
        streams = ["--streams", "layout"] if reads_nothing else []
        if config.part is not None:
            step = f"extract the other parts, then list all with {command('ifcar', 'cache', 'parts')} PART … --out FILE"
        elif result.has_boxes and (reads_nothing or result.has_instances):
            step = command("ifcar", "fit-head", "sfi", *named, *streams, "--aux-weight", 5)
        elif reads_nothing:
            step = "extract with boxes (the data set's, or --boxes FILE), or with a backbone that reads pixels"
        else:
            step = command("ifcar", "fit-head", "i3d", *named)
        root = [] if config.data_root is None else ["--data-root", config.data_root]
        if result.num_done:  # of a cache without a row, nothing can be trained or shown
            say(f"Next: {step}, or {command('ifcar', 'cache', 'show', result.cache, *root)} for pictures.")
    if result.num_failed:
        failed = count_of(result.num_failed, "row")
        say(f"{failed} failed; reasons in {result.failures_file}; try again with --retry-failed")
        raise typer.Exit(1)
