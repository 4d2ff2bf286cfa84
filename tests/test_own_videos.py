"""A stranger's hour: eight own videos with CVAT boxes and a table, in a folder with blanks and accents in its name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fixtures.networks import published
from fixtures.own_videos import (
    NUM_FRAMES,
    VIDEOS,
    cvat_of_video,
    cvat_track,
    label_of,
    write_bare_video,
    write_own_videos,
    write_portrait,
)
from fixtures.videos import write_video
from fixtures.weights import random_weights

from ifcar.cli import main

pytestmark = pytest.mark.slow


def ifcar(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    return said.out


def test_own_videos_go_from_files_to_a_report_and_a_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "Mes vidéos à moi"
    root = write_own_videos(home / "données d’été")
    for name in ("DATA", "CACHES", "RUNS", "WEIGHTS"):
        monkeypatch.setenv(f"IFCAR_{name}", str(home / name.lower()))
    monkeypatch.chdir(home)
    small = ("--weights", random_weights(tmp_path), "--crop", 32, "--frames", 8, "--instances", 2, "--workers", 0)
    said = ifcar(capsys, "extract", "--dataset", "folder", "--data-root", root, *small)
    assert "8 files read as CVAT XML, frame numbers counted from 0" in said.replace("\n", " ")
    assert "2 of 8 clips, 2 of 8 videos, are for test" in said.replace("\n", " ")
    run = home / "runs" / "own"
    quick = ("--preset", "small", "--min-steps", 150, "--no-refit", "--streams", "layout", "--out", run)
    ifcar(capsys, "fit-head", "sfi", *quick)
    scores = {row["split"]: row for row in json.loads((run / "metrics.json").read_text())}
    assert scores["test"]["n"] == 2 and scores["test"]["top1"] == 1.0
    page = home / "report"
    ifcar(capsys, "report", "--out", page, "--data-root", root)
    assert (page / "index.html").is_file()
    # a new video: the hand moves as in those of the first label, boxes are listed at both ends alone
    write_video(home / "nouvelle vidéo.mp4", NUM_FRAMES, fps=12)
    track = cvat_track(0, "hand", {0: ((2, 14, 14, 26), 0), NUM_FRAMES - 1: ((44, 14, 56, 26), 0)})
    (home / "boîtes.xml").write_text(cvat_of_video("nouvelle vidéo.mp4", track), encoding="utf-8")
    said = ifcar(capsys, "predict", run, home / "nouvelle vidéo.mp4", "--boxes", home / "boîtes.xml", "--json")
    answer = json.loads(said)
    assert answer["notes"] == ["boxes: 1 file read as CVAT XML, frame numbers counted from 0"]
    assert answer["clip_id"] == "nouvelle vidéo" and answer["num_subjects"] == 1
    assert answer["top"][0]["name"] == label_of(0) != label_of(1)
    assert len(VIDEOS) == 8
    # a bare video of the other label: its boxes are found by a detector
    write_bare_video(home / "vidéo nue.mp4", 1)
    detector = ("--detector", "blobs", "--detector-weights", home)
    answer = json.loads(ifcar(capsys, "predict", run, home / "vidéo nue.mp4", *detector, "--json"))
    assert answer["notes"] == ["the run was trained on annotated boxes, and these were found by blobs"]
    assert (answer["num_subjects"], answer["num_objects"]) == (1, 1) and answer["top"][0]["name"] == label_of(1)


def test_a_run_on_boxes_of_a_file_takes_those_of_another_file_or_of_a_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`extract --boxes` reads files with classes, here CVAT's; the same boxes give a clip's stored logits again."""
    monkeypatch.chdir(tmp_path)
    root, boxes, run = write_own_videos(tmp_path / "data"), tmp_path / "boxes", tmp_path / "run"
    (root / "boxes").rename(boxes)
    extraction = ("extract", "--dataset", "folder", "--data-root", root, "--boxes", boxes, "--out", "c.zarr")
    small = ("--backbone", "mobilenet_v2", "--weights", "random:0", "--crop", 32, "--instances", 2, "--workers", 0)
    ifcar(capsys, *extraction, *small, "--subjects", "cup")
    with pytest.raises(SystemExit, match="2"):  # what a subject is belongs to what a cache is
        main([str(word) for word in (*extraction, *small)])
    assert "subjects" in capsys.readouterr().err
    quick = ("--preset", "small", "--min-steps", 150, "--no-refit", "--streams", "layout", "--out", run)
    ifcar(capsys, "fit-head", "base", "--cache", "c.zarr", *quick)
    stored = np.load(run / "predictions.npz")
    for clip_id, logits in zip(stored["test/clip_ids"].tolist(), stored["test/logits"], strict=True):
        video = root / "videos" / f"{clip_id}.mp4"
        answer = json.loads(ifcar(capsys, "predict", run, video, "--boxes", boxes, "--json"))
        np.testing.assert_allclose(answer["logits"][0], logits, rtol=1e-4, atol=1e-5)
        assert answer["notes"] == ["boxes: 8 files read as CVAT XML, frame numbers counted from 0"]
    write_bare_video(tmp_path / "bare.mp4", 1)
    detector = ("--detector", "blobs", "--detector-weights", tmp_path)
    answer = json.loads(ifcar(capsys, "predict", run, "bare.mp4", *detector, "--json"))
    assert answer["notes"] == ["the run was trained on boxes of a file, and these were found by blobs"]
    assert (answer["num_subjects"], answer["num_objects"]) == (1, 1) and answer["top"][0]["name"] == label_of(1)


def test_a_real_network_finds_the_boxes_of_videos_that_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A photograph of a person moves to either side: detector → tracks → head, and from bare videos to their labels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IFCAR_WEIGHTS", str(tmp_path / "weights"))
    published("mediapipe-objects", tmp_path / "weights")
    lines = ["video,label"]
    for number in range(8):
        write_portrait(tmp_path / "data" / "videos" / f"{number}.mp4", number)
        lines.append(f"{number},{label_of(number)}")
    (tmp_path / "data" / "labels.csv").write_text("\n".join(lines) + "\n")
    ifcar(capsys, "detect", "data/videos", "--detector", "mediapipe-objects", "--classes", "person", "--fps", 6)
    backbone = ("--backbone", "mobilenet_v2", "--weights", "random:0", "--crop", 32, "--frames", 4, "--workers", 0)
    ifcar(capsys, "extract", "--dataset", "folder", "--data-root", "data", "--boxes", "boxes.json", *backbone)
    quick = ("--preset", "small", "--min-steps", 150, "--no-refit", "--streams", "layout", "--out", "run")
    ifcar(capsys, "fit-head", "base", "--cache", "caches/folder-mobilenet_v2.zarr", *quick)
    for number in (8, 9):
        write_portrait(tmp_path / f"{number}.mp4", number)
        answer = json.loads(ifcar(capsys, "predict", "run", f"{number}.mp4", "--json"))
        assert answer["notes"] == [] and answer["num_subjects"] == 4 and answer["top"][0]["name"] == label_of(number)
