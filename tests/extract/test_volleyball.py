"""Volleyball's files, read end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fixtures.volleyball import HEIGHT, KEYS, VIDEOS, WIDTH, activity_of, players_of, write_volleyball
from fixtures.weights import random_weights

from ifcar.cache.open import open_cache
from ifcar.cache.schema import Category, Split
from ifcar.cli import main
from ifcar.errors import InputError, MissingDataError
from ifcar.extract.datasets.volleyball import (
    GROUP_ACTIVITIES,
    PERSONAL_ACTIONS,
    TEST_VIDEOS,
    TRAIN_VIDEOS,
    VALIDATION_VIDEOS,
    Volleyball,
)
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig


def test_official_split_gives_each_of_55_videos_one_part() -> None:
    assert (len(TRAIN_VIDEOS), len(VALIDATION_VIDEOS), len(TEST_VIDEOS)) == (24, 15, 16)
    assert sorted(TRAIN_VIDEOS + VALIDATION_VIDEOS + TEST_VIDEOS) == list(range(55))


@pytest.mark.slow
def test_clips_go_from_files_to_a_scored_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    root, out = write_volleyball(tmp_path / "data"), tmp_path / "c.zarr"
    config = ExtractConfig(
        dataset="volleyball",
        data_root=root,
        out=out,
        backbone="mobilenet_v2",
        weights=random_weights(out, "mobilenet_v2"),
        crop=32,
        instances=6,
        workers=0,
    )
    result = extract(config, Silent())
    assert (result.num_clips, result.num_failed, result.notes) == (10, 0, [])
    reader = open_cache(out)
    assert reader.clip_ids == [f"{video}/{key}" for video in sorted(VIDEOS) for key in KEYS]
    row = reader.clip_ids.index("4/250")
    # eight frames from eight equal segments of the 41: the middle of segment k is 229 + 41 (k + 1/2) / 8, from 0
    assert reader.table("frame_indices")[row].tolist() == [231, 236, 241, 246, 252, 257, 262, 267]
    players = players_of(4, 250)
    assert len(players) == 4
    boxes, categories = reader.table("boxes")[row], reader.table("categories")[row]
    for n, (x, y, w, h, _) in enumerate(players):
        expected = [(x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT]
        np.testing.assert_allclose(boxes[:, n], np.tile(expected, (8, 1)), atol=1e-6)
    assert (categories[:, :4] == Category.SUBJECT).all() and not categories[:, 4:].any() and not boxes[:, 4:].any()

    table = reader.protocol("official")
    group, personal, actions = table.spaces
    assert (group.classes, personal.classes, actions.classes) == (GROUP_ACTIVITIES, PERSONAL_ACTIONS, PERSONAL_ACTIONS)
    assert [(space.name, space.kind, space.over) for space in table.spaces] == [
        ("group", "single", "clip"),
        ("personal", "single", "instance"),
        ("actions", "multi", "clip"),
    ]
    assert personal.instance_ids is not None
    for number, clip_id in enumerate(reader.clip_ids):
        video, key = map(int, clip_id.split("/"))
        assert group.classes[group.targets[number]] == activity_of(video, key)
        does = [action for *_, action in players_of(video, key)]
        assert {PERSONAL_ACTIONS[k] for k in np.flatnonzero(actions.targets[number])} == set(does)
        count = len(does)
        assert [PERSONAL_ACTIONS[k] for k in personal.targets[number, :count]] == does
        assert personal.instance_ids[number, :count].tolist() == [f"{clip_id}/{n + 1}" for n in range(count)]
        assert (personal.targets[number, count:] == -1).all() and not personal.instance_ids[number, count:].any()
        assert table.split[number] == (Split.TEST if video == 4 else Split.TRAIN)
        assert table.group_names[table.groups[number]] == f"video {video}"
    reader.close()
    short = ScheduleConfig(kind="stretched", epochs=4, batch_size=4, refit=False)
    for labels, n, measure in ((None, 2, "top-1"), ("personal", 8, "top-1"), ("actions", 2, "mAP")):
        config = make_run_config("stin", out, labels=labels, streams="layout", preset="small", schedule=short)
        run = fit(config, Silent()).run
        assert run.config.labels == (labels or "group")  # type: ignore[union-attr]
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", str(run.path)])
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert f"test, n = {n}: {measure}" in printed and "stored with the run are the same" in printed
    run = fit(make_run_config("i3d", out, labels="personal", schedule=short), Silent()).run
    assert run.data().notes[-1] == (
        "head 'i3d' reads no instances, which have the labels: all instances of a clip get the same scores"
    )
    found = run.predictions("test")
    of_clip = np.array([name.rpartition("/")[0] for name in found.clip_ids])
    for clip in set(of_clip):
        assert len(np.unique(found.logits[of_clip == clip], axis=0)) == 1


def test_players_without_a_slot_are_said(tmp_path: Path) -> None:
    dataset = Volleyball(write_volleyball(tmp_path, pixels=False))
    dataset.num_instances = 3
    ids = [clip.clip_id for clip in dataset.listing(needs_pixels=False).clips]
    (table,), notes = dataset.protocols(ids)
    counts = [len(players_of(*map(int, clip_id.split("/")))) for clip_id in ids]
    lost, in_all = sum(max(0, count - 3) for count in counts), sum(counts)
    assert lost and notes == [
        f"protocol official: {lost} of {in_all} players have no slot, so that their actions are not among the labels "
        "of 'personal'"
    ]
    assert table.spaces[1].targets.shape == (10, 3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("300.jpg l_set 1 2 3 4", r"line 2: 6 words, the first '300\.jpg'; expected KEY\.jpg"),
        ("300.png l_set", r"line 2: 2 words, the first '300\.png'"),
        ("300.jpg", "line 2: 1 words"),
        ("key.jpg l_set", "the key frame's number is 'key'"),
        ("0.jpg l_set", "the key frame's number is 0; expected 1 to"),
        ("300.jpg l_sett", "unknown group activity 'l_sett', did you mean 'l_set'"),
        ("300.jpg l_set 1 2 3 4 blockin", "unknown action 'blockin', did you mean 'blocking'"),
        ("300.jpg l_set 1 two 3 4 waiting", "y of a box is 'two'; expected a finite number"),
        ("300.jpg l_set 1 2 inf 4 waiting", "w of a box is 'inf'"),
        ("300.jpg l_set 1 2 3 1e7 waiting", "a box of 1 2 3 1e7; expected pixels"),
        ("100.jpg l_set", "key frame 100 is annotated twice"),
        ("\udce9", "line 2: not UTF-8 text"),
    ],
)
def test_broken_line_is_refused_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "videos" / "4" / "annotations.txt"
    path.parent.mkdir(parents=True)
    path.write_text(f"100.jpg r_set 1 2 3 4 waiting\n{line}\n", errors="surrogateescape")
    with pytest.raises(InputError, match=message) as caught:
        Volleyball(tmp_path).listing(needs_pixels=True)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_flat_boxes_missing_pictures_and_other_videos_are_noted(tmp_path: Path) -> None:
    root = write_volleyball(tmp_path, pixels=False)
    (root / "videos" / "4" / "100" / "100.jpg").unlink()
    (root / "videos" / "60").mkdir()
    (root / "videos" / "60" / "annotations.txt").write_text("9.jpg r_set 1 2 0 4 falling 1 2 3 4 moving\n")
    (root / "videos" / "60" / "9").mkdir()
    (root / "videos" / "60" / "9" / "9.jpg").write_bytes((root / "videos" / "1" / "100" / "100.jpg").read_bytes())
    dataset = Volleyball(root)
    listing = dataset.listing(needs_pixels=False)
    ids = [clip.clip_id for clip in listing.clips]
    assert len(ids) == 10 and "4/100" not in ids and ids[-1] == "60/9"
    assert "1 box without area is left out" in listing.notes[0] and "4/100: left out" in listing.problems[0]
    assert dataset.tracks("60/9").boxes.shape == (29, 1, 4)  # frames 0 … 28 of the clip around picture 9
    (table,), notes = dataset.protocols(ids)
    _, personal, actions = table.spaces
    assert table.split[-1] == Split.NONE and actions.targets[-1].sum() == 2  # the action counts without a box
    assert personal.instance_ids is not None and personal.instance_ids[-1, :2].tolist() == ["60/9/2", ""]
    assert notes == ["1 clip is of videos other than 0 … 54, which no part of the split lists"]


def test_missing_folder_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no videos/V/annotations\.txt; unpack"):
        Volleyball(tmp_path).prepare()
