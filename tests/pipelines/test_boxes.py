"""Heads that read instances on clips without boxes, and clips with more tracks than slots."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
from fixtures.something_else import label, record, write_dataset
from fixtures.weights import random_weights

from ifcar.cache.open import open_cache
from ifcar.cli import main
from ifcar.errors import InputError
from ifcar.heads.catalog import HEADS
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.fit import fit
from ifcar.pipelines.grid.config import GridConfig
from ifcar.pipelines.grid.lines import SystemConfig
from ifcar.pipelines.grid.plan import plan_grid
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.finished import Run
from ifcar.pipelines.runs.questions import EvaluateConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.testing.batches import FULL_SPEC

BRIEF = ScheduleConfig(kind="paper", epochs=1)
TRAIN, TEST = {"100", "101", "104", "105"}, {"102", "103", "106", "107"}


def boxes_of(tmp_path: Path, name: str, boxless: Collection[str]) -> Path:
    """Return a cache of eight clips, four to train on, of which these have no box."""
    root = write_dataset(tmp_path / name, pixels=False)
    content = json.loads((root / "annotations.json").read_text())
    for clip in boxless:
        content[clip] = [{**record, "labels": []} for record in content[clip]]
    (root / "annotations.json").write_text(json.dumps(content))
    options = ExtractConfig(
        dataset="something-else", data_root=root, out=tmp_path / f"{name}.zarr", backbone="none", workers=0
    )
    return extract(options, Silent()).cache


def config(cache: Path, head: str = "sfi") -> RunConfig:
    return make_run_config(head, cache, streams="layout", preset="small", schedule=BRIEF)


def train(cache: Path, out: Path) -> Run:
    return fit(config(cache), Silent(), out=out).run


def test_head_on_no_box_at_all_is_refused_before_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = boxes_of(tmp_path, "none", TRAIN | TEST)
    options = ["--streams", "layout", "--preset", "small", "--cache", str(cache), "--out", str(tmp_path / "r")]
    with pytest.raises(SystemExit) as done:
        main(["fit-head", "sfi", *options])
    printed = capsys.readouterr()
    assert done.value.code == 2 and printed.err.count("\n") == 1
    assert "none of the 4 training clips has a box" in printed.err and "head 'sfi'" in printed.err
    assert not (tmp_path / "r" / "config.yaml").exists()
    systems = (SystemConfig(name="A", head="stin", streams="layout"),)
    with pytest.raises(InputError, match=r"system 'A': .*none of the 4 training clips has a box"):
        plan_grid(GridConfig(name="g", title="", systems=systems), cache)


@pytest.mark.slow
def test_extraction_without_a_box_says_so_and_names_a_head_that_needs_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_dataset(tmp_path / "d", num_clips=4)
    content = json.loads((root / "annotations.json").read_text())
    boxless = {clip: [{**record, "labels": []} for record in records] for clip, records in content.items()}
    (root / "annotations.json").write_text(json.dumps(boxless))

    def run_main(*arguments: object) -> str:
        with pytest.raises(SystemExit) as done:
            main([str(word) for word in arguments])
        printed = capsys.readouterr()
        assert done.value.code == 0, printed.err
        return printed.out

    data = ("extract", "--dataset", "something-else", "--data-root", root, "--workers", 0)
    printed = run_main(*data, "--backbone", "none", "--out", tmp_path / "layout.zarr")
    assert "note: no clip has a box" in printed and "Next: extract with boxes" in printed
    pixels = ("--weights", random_weights(tmp_path), "--crop", 32, "--frames", 4)
    printed = run_main(*data, *pixels, "--out", tmp_path / "pixels.zarr")
    assert "note: no clip has a box" in printed
    (line,) = (line for line in printed.splitlines() if line.startswith("Next: "))
    fit_words = shlex.split(line.split("`")[1])[1:]
    run_main(*fit_words, "--schedule", "paper", "--epochs", 1, "--out", tmp_path / "r")
    assert (tmp_path / "r" / "config.yaml").exists()


def test_boxless_clips_among_others_are_trained_on_and_a_boxless_test_part_is_said(tmp_path: Path) -> None:
    some = train(boxes_of(tmp_path, "some", TRAIN - {"100"} | {"102"}), tmp_path / "a")
    assert some.data().notes == ()
    untested = train(boxes_of(tmp_path, "untested", TEST), tmp_path / "b")
    assert untested.data().notes == (
        "none of the 4 test clips has a box: a head that reads instances sees nothing of them",
    )
    with pytest.raises(InputError, match="none of the 4 training clips has a box"):
        train(boxes_of(tmp_path, "untrained", TRAIN), tmp_path / "c")


def test_run_is_not_scored_on_a_cache_without_boxes(tmp_path: Path) -> None:
    cache, boxless = boxes_of(tmp_path, "some", ()), boxes_of(tmp_path, "none", TRAIN | TEST)
    run = train(cache, tmp_path / "r")
    fingerprints = [open_cache(path).fingerprint for path in (cache, boxless)]
    content = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(content.replace(*fingerprints))
    with pytest.raises(InputError, match="none of the 8 clips has a box"):
        evaluate(run.path, EvaluateConfig(cache=boxless))


def test_heads_that_read_frames_alone_are_told_from_those_that_read_instances() -> None:
    kinds = {name: HEADS.get(name) for name in HEADS.names()}
    without = {name for name, kind in kinds.items() if not FULL_SPEC.reads_instances(kind.reads(kind.presets["paper"]))}
    assert without == {"i3d", "activity-specific", "attentive-probe", "ccau", "two-stage-transformer"}
    own = kinds["activity-specific"]
    assert FULL_SPEC.reads_instances(own.reads(own.presets["instances"]))


@pytest.mark.parametrize(
    ("tracks", "slots", "note"),
    [
        ((2, 5, 3, 1), 2, "2 of 4 clips have more than 2 tracks; --instances 5 keeps all"),
        ((2, 5, 3, 1), 5, None),
        (
            (2, 30, 3, 1),
            3,
            "1 of 4 clips has more than 3 tracks; 25 % of all tracks are kept, and the fullest clip has 30",
        ),
    ],
)
def test_tracks_without_a_slot_are_said_and_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tracks: tuple[int, ...], slots: int, note: str | None
) -> None:
    root = write_dataset(tmp_path / "d", num_clips=len(tracks), pixels=False)
    content = {
        str(100 + clip): [
            record(str(100 + clip), frame, [label(f"{k:04d}", (k, 2, k + 9, 12)) for k in range(count)])
            for frame in range(4)
        ]
        for clip, count in enumerate(tracks)
    }
    (root / "annotations.json").write_text(json.dumps(content))
    out = tmp_path / "c.zarr"
    command = [
        "extract",
        "--dataset",
        "something-else",
        "--data-root",
        str(root),
        "--out",
        str(out),
        "--backbone",
        "none",
    ]
    for _ in range(2):  # the second time there is nothing left to compute
        with pytest.raises(SystemExit) as done:
            main([*command, "--workers", "0", "--instances", str(slots), "--json"])
        assert not done.value.code
        notes = json.loads(capsys.readouterr().out)["notes"]
        assert [n for n in notes if " tracks; " in n or " tracks are kept" in n] == ([] if note is None else [note])
    kept = open_cache(out).table("categories").max(axis=1).astype(bool).sum(axis=1)
    np.testing.assert_array_equal(kept, np.minimum(tracks, slots))
