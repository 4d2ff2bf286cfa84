"""`ifcar detect`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ifcar.commands.config_options import Given, OptionsOf, with_config_options
from ifcar.commands.options import Json, say, say_notes
from ifcar.console import Screen, print_json, print_table
from ifcar.pipelines.detection.config import DetectConfig
from ifcar.shell_words import command

_SHOWN = 10
FLAGS = {"detector_weights": "--weights", "detector_fps": "--fps"}


@with_config_options
def detect(
    options: Annotated[Given, OptionsOf(DetectConfig, flags=FLAGS)],
    videos: Annotated[
        list[Path] | None, typer.Argument(help="Videos, folders of frames 0001.jpg, …, or folders that hold some.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find boxes in videos that have none, with their classes and tracks; interrupted and run again, it goes on.

    `ifcar extract --boxes FILE` reads the file. Videos that it lacks are added to it by the same command.
    """
    from ifcar.pipelines.detect import detect as run_detect

    config = DetectConfig(**options.read(), videos=tuple(videos or ()))
    result = run_detect(config, Screen(quiet=as_json))
    if as_json:
        print_json(asdict(result))
    else:
        say_notes(result.notes)
        counts = (result.num_clips, result.num_computed, result.num_boxes, result.num_tracks, result.num_subjects)
        print_table(
            str(result.boxes),
            ["clips", "looked at now", "boxes", "tracks", "of subjects", "failed"],
            [[str(count) for count in (*counts, len(result.failures))]],
        )
        dataset = ["--dataset", config.dataset or "DATASET"]
        root = [] if config.data_root is None else ["--data-root", config.data_root]
        say(f"Next: {command('ifcar', 'extract', *dataset, *root, '--boxes', result.boxes)}")
    if result.failures:
        for clip_id, reason in list(result.failures.items())[:_SHOWN]:
            say(f"failed: {clip_id}: {reason}")
        if len(result.failures) > _SHOWN:
            say(f"failed: … and {len(result.failures) - _SHOWN} more (all with --json)")
        raise typer.Exit(1)
