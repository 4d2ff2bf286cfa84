"""`ifcar predict`: a finished run on one new video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

import typer

from ifcar.commands.config_options import Given, OptionsOf, with_config_options
from ifcar.commands.options import Json, say, say_notes
from ifcar.console import Screen, print_json, print_table
from ifcar.counts import count_of
from ifcar.pipelines.detection.config import DetectorConfig
from ifcar.pipelines.runs.questions import PredictConfig

OF_RUN = {
    field.name: "that of the run's boxes" if field.name == "detector" else "as the run's boxes were found"
    for field in fields(DetectorConfig)
    if field.name != "detector_weights"
}


@with_config_options
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run or ensemble.")],
    video: Annotated[Path, typer.Argument(help="A video file, or a folder of frames 0001.jpg, ….")],
    options: Annotated[Given, OptionsOf(PredictConfig)],
    detector: Annotated[Given, OptionsOf(DetectorConfig, stated=OF_RUN)],
    as_json: Json = False,
) -> None:
    """Run backbone and head on one new video and print the likeliest classes; the run's cache is not needed.

    A run that learned labels over instances says what each subject (hand or person) does.

    Boxes are those of --boxes, or found by --detector; a run that was trained on detected boxes (`ifcar detect`) takes
    their detector as it was then, and a run that reads no boxes needs none.

    Boxes of a file are in the video's pixels. Frame numbers of Something-Else's records (ID/0001.jpg is the first)
    count at the rate of the dataset that the run was trained on, 12 a second for Something-Else; those of all other
    forms, and of runs on dataset folder, are the video's own frames. A run without pixels (backbone none) opens the
    video only for its size.
    """
    from ifcar.pipelines.predict import predict as run_predict

    result = run_predict(run, video, Screen(quiet=as_json), PredictConfig(**options.read()), detector.read())
    if as_json:
        content = asdict(result)
        answers = content.pop("answers")
        of_clip = result.answers and result.answers[0].slot is None
        more = (
            {key: answers[0][key] for key in ("top", "logits", "probabilities")} if of_clip else {"instances": answers}
        )
        print_json({"run": run, "video": video, **content, **more})
        return
    for answer in result.answers:
        where = "" if answer.box is None else f", slot {answer.slot}, seen first at {_percent(answer.box)}"
        print_table(
            f"{video}, by {run}{where}",
            ["class", "probability"],
            [[score.name, f"{score.probability:.3f}"] for score in answer.top],
        )
    views = count_of(result.num_views, "view", "views, averaged,")
    say(
        f"Seen of clip {result.clip_id!r}: {result.num_subjects + result.num_objects} of {result.num_tracks} tracks "
        f"(subjects {result.num_subjects}, objects {result.num_objects}), {views} of {result.num_frames} frames."
    )
    say_notes(result.notes)


def _percent(box: Sequence[float]) -> str:
    """Return a box's centre and sides in percent of the view."""
    cx, cy, w, h = (round(100 * value) for value in box)
    return f"({cx}, {cy}) %, {w} × {h} %"
