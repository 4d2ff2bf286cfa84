"""Dataset `folder`: one's own videos and a table of labels, read as clips, labels and parts; bad tables in one line."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from fixtures.own_videos import NUM_FRAMES, SIZE, VIDEOS, label_of, write_own_videos
from fixtures.videos import write_frames, write_video
from fixtures.weights import random_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from ifcar.cache.open import open_cache
from ifcar.cache.schema import Category, Split
from ifcar.errors import IfcarError, InputError
from ifcar.extract.datasets.contract import Listing
from ifcar.extract.datasets.folder import Folder
from ifcar.extract.datasets.folder_labels import draw_split
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.sources import read_source
from ifcar.pipelines.fit import fit
from ifcar.pipelines.labels.kinds import kind_of
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.resolve import make_run_config


def write_table(root: Path, table: str, videos: tuple[str, ...] = ("a", "b", "c")) -> Path:
    for name in videos:
        write_video(root / "videos" / f"{name}.mp4", 24, fps=12)
    (root / "labels.csv").write_text(table, encoding="utf-8")
    return root


def listed(root: Path, *, needs_pixels: bool = True) -> tuple[Folder, Listing]:
    dataset = Folder(root)
    dataset.prepare()
    return dataset, dataset.listing(needs_pixels=needs_pixels)


def test_rows_are_clips_with_their_labels_parts_groups_and_spans(tmp_path: Path) -> None:
    table = "video,label,split,group,start_sec,end_sec\n"
    table += "a,run; jump,train,x,0,1\nb.mp4,run,test,y,,\na,,train,x,1,\nc,jump,,z,,1.5\n"
    dataset, listing = listed(write_table(tmp_path, table))
    ids = [clip.clip_id for clip in listing.clips]
    assert ids == ["a,0-1", "a,1-end", "b", "c"] and not listing.problems  # the clips of a video follow each other
    assert [clip.span_sec for clip in listing.clips] == [(0, 1), (1, np.inf), (0, np.inf), (0, 1.5)]
    (protocol,), notes = dataset.protocols(ids)
    assert protocol.labels.kind == "multi" and protocol.labels.classes == ("jump", "run")
    assert protocol.labels.targets.tolist() == [[1, 1], [0, 0], [0, 1], [1, 0]]
    assert protocol.split.tolist() == [Split.TRAIN, Split.TRAIN, Split.TEST, Split.NONE]
    assert [protocol.group_names[k] for k in protocol.groups] == ["x", "x", "y", "z"] and protocol.group_kind == "group"
    assert "several labels a clip" in notes[0] and "1 of 4 rows has no label" in notes[1]


def test_clips_without_a_label_are_negatives_and_what_is_strange_about_labels_is_said(tmp_path: Path) -> None:
    """A clip without a label counts against a class where it scores, and a group on both sides is counted."""
    table = "video,label,split,group\na,Run;jump,train,x\nb,run,test,x\nc,,test,y\nd,nan,train,z\n"
    dataset, listing = listed(write_table(tmp_path, table, ("a", "b", "c", "d")))
    (protocol,), notes = dataset.protocols([clip.clip_id for clip in listing.clips])
    assert protocol.labels.kind == "multi"
    targets = np.array(
        [[1, 0, 0, 0], [0, 0, 0, 0]], np.int8
    )  # the second clip has no label, and scores above the first
    logits = np.array([[1.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]], np.float32)
    scores = kind_of(protocol.labels).class_scores(logits, targets)
    assert scores[0] == average_precision_score(targets[:, 0], logits[:, 0]) == 0.5
    said = "\n".join(notes)
    assert "1 of 3 groups is in training and in test, the first: 'x'" in said
    assert "'nan' is taken as a class" in said and "capital letters alone: 'Run', 'run'" in said


def test_one_label_a_row_is_single_label_and_a_split_is_drawn_and_said(tmp_path: Path) -> None:
    table = "video,label,notes\na,run,x\nb,jump,y\nc,run,z\nd,jump,\ngone,run,\n"
    root = write_table(tmp_path, table, ("a", "b", "c", "d", "not listed"))
    dataset, listing = listed(root)
    ids = [clip.clip_id for clip in listing.clips]
    (protocol,), notes = dataset.protocols(ids)
    assert protocol.labels.kind == "single" and protocol.labels.targets.tolist() == [1, 0, 1, 0]
    assert sorted(protocol.split.tolist()) == [Split.TRAIN] * 3 + [Split.TEST]
    assert notes[0] == "labels.csv: one label a clip, 2 classes, measured by top-1"
    assert "no column split: 1 of 4 clips, 1 of 4 videos, are for test, drawn with a fixed seed" in notes[1]
    assert listing.problems == ["gone: left out, neither videos/ nor frames/ has 'gone'"]
    assert listing.notes == [
        "1 of 5 videos is not in labels.csv, the first: not listed.mp4",
        "labels.csv: columns that are not read: 'notes'",
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from("uvwxyz"), st.sets(st.sampled_from("ABC"), min_size=1, max_size=2)),
        min_size=1,
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=50, derandomize=True, deadline=None)
def test_a_drawn_split_keeps_groups_whole_and_every_label_in_training(rows: list, random: object) -> None:
    labels = {f"clip {number}": sorted(own) for number, (_, own) in enumerate(rows)}
    groups = {f"clip {number}": group for number, (group, _) in enumerate(rows)}
    parts = draw_split(labels, groups)
    assert parts.keys() == labels.keys()
    assert all(len({parts[clip] for clip in labels if groups[clip] == name}) == 1 for name in set(groups.values()))
    trained = {label for clip, own in labels.items() for label in own if parts[clip] == Split.TRAIN}
    assert trained == {label for own in labels.values() for label in own}
    assert sum(part == Split.TEST for part in parts.values()) <= max(1, round(len(labels) / 4))
    shuffled = list(labels)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert draw_split({clip: labels[clip] for clip in shuffled}, groups) == parts


def test_a_name_is_found_however_its_accents_are_stored(tmp_path: Path) -> None:
    root = write_table(tmp_path, f"video,label\n{normalize('NFC', 'é')},run\nb,jump\n", (normalize("NFD", "é"), "b"))
    _, listing = listed(root)
    assert [clip.clip_id for clip in listing.clips] == [normalize("NFC", "é"), "b"] and not listing.problems


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("video,labels\na,b\n", "line 1: the header lacks the column label"),
        (
            "video;label\na;b\n",
            "line 1: the header is one column, 'video;label', separated by ';'; separate columns by",
        ),
        ("Video,label\na,b\n", r"line 1: the header lacks the column video (it has 'Video'; in small letters)"),
        ("video,label,Split\na,b,train\nb,c,test\n", "names 'Split'; expected 'split', in small letters"),
        ("video,label\na,run\nb,run\n", "2 rows with only 'run' as label; expected at least two"),
        ("video,label\na,\nb,\n", "2 rows with none as label"),
        ("video,label,split\na,run,val\n", "line 2: split is 'val'; expected train, test or nothing"),
        ("video,label\na,run\na.mp4,jump\n", "line 3: video 'a.mp4', is a clip already, of"),
        ("video,label,start_sec\na,run,1\na,jump,1\n", "line 3: video 'a', from 1 to inf s, is a clip already, of"),
        ("video,label\na,run\rb,jump\n", "line 2: no comma-separated row (a carriage return within the line)"),
        ("video,label\na,run;run\n", "line 2: label names 'run' twice"),
        ("video,label\nx/a,run\n", "line 2: video is 'x/a'; expected the name of a file or folder, no path"),
        ("video,label,start_sec,end_sec\na,run,2,1\n", "line 2: the clip is from 2 to 1 s; expected 0 ≤ start < end"),
        ("video,label,start_sec\na,run,x\n", "line 2: start_sec is 'x'; expected a finite number"),
        ("video,label,fps\na,run,12\nb,jump,\n", "line 2: fps would be ignored"),
        ("video,label,start_sec\nframed,run,1\na,jump,\n", "need its rate; add the column fps"),
        ("video,label\na\n", "line 2: 1 columns; expected 2"),
    ],
)
def test_a_bad_table_is_one_line(table: str, message: str, tmp_path: Path) -> None:
    write_frames(tmp_path / "frames" / "framed", 3, "{:04d}.png")
    with pytest.raises(IfcarError) as error:
        listed(write_table(tmp_path, table, ("a", "b")))
    assert message in str(error.value) and "labels.csv" in str(error.value) and "\n" not in str(error.value)


def test_boxes_of_none_of_the_videos_are_refused_with_the_nearest_name(tmp_path: Path) -> None:
    root = write_table(tmp_path, "video,label\nTasse,run\nb,jump\n", ("Tasse", "b"))
    (root / "boxes.csv").write_text("video,frame,label,x1,y1,x2,y2\nTase.mp4,1,hand,1,1,9,9\n")
    with pytest.raises(InputError, match=r"boxes\.csv: boxes of video 'Tase.mp4', .* 2 videos .* mean 'Tasse'\?"):
        listed(root)
    (root / "boxes" / "b").mkdir(parents=True)
    (root / "boxes" / "b" / "gt.txt").write_text("1,1,1,1,8,8,1,-1,1\n")
    notes = listed(root)[1].notes
    assert any("boxes of 1 video that no clip shows are not read, the first: 'Tase.mp4'" in note for note in notes)


def test_a_damaged_file_in_boxes_belongs_to_the_data_set_and_stops_a_run_with_other_boxes_too(tmp_path: Path) -> None:
    root = write_own_videos(tmp_path / "d")
    other = (root / "boxes").rename(tmp_path / "other")
    (root / "boxes.xml").write_text("<annotations><track")
    for boxes in (None, other):
        config = ExtractConfig(dataset="folder", data_root=root, out=tmp_path / "c.zarr", boxes=boxes)
        with pytest.raises(InputError, match=r"d/boxes\.xml: damaged XML"):
            read_source(config, Silent(), needs_pixels=True)


def test_subjects_that_would_be_ignored_are_refused(tmp_path: Path) -> None:
    def run(root: Path, dataset: str = "folder") -> None:
        config = ExtractConfig(
            dataset=dataset, data_root=root, out=tmp_path / "c.zarr", backbone="none", subjects="cap"
        )
        extract(config, Silent())

    with pytest.raises(InputError, match=r"would be ignored: .* has neither boxes/ nor boxes"):
        run(write_own_videos(tmp_path / "bare", boxes=False))
    with pytest.raises(InputError, match=r"is of class 'cap', did you mean 'cup'\? Its classes: cup, hand"):
        run(write_own_videos(tmp_path / "boxed"))
    with pytest.raises(InputError, match="would be ignored: dataset 'toybox' has its own"):
        run(tmp_path, "toybox")


def test_boxes_without_pixels_are_those_of_the_frames_and_subjects_as_they_are_named(tmp_path: Path) -> None:
    root, out = write_own_videos(tmp_path / "data"), tmp_path / "c.zarr"
    config = ExtractConfig(
        dataset="folder", data_root=root, out=out, backbone="none", frames=4, instances=2, subjects="cup"
    )
    extract(config, Silent())
    reader = open_cache(out)
    row = reader.clip_ids.index(VIDEOS[0])
    frames, boxes, categories = (reader.table(name)[row] for name in ("frame_indices", "boxes", "categories"))
    assert frames.tolist() == [int((k + 0.5) * NUM_FRAMES / 4) for k in range(4)]
    hand = np.flatnonzero(categories[0] == Category.OBJECT)[0]
    centres = (10 + 36 * frames / (NUM_FRAMES - 1)) / SIZE[0]
    np.testing.assert_allclose(boxes[:, hand, 0], centres, atol=1e-3)
    assert reader.identity["dataset"]["subjects"] == "cup"
    labels = reader.protocol("own").labels
    assert [labels.classes[k] for k in labels.targets] == [label_of(k) for k in range(8)]
    reader.close()


@pytest.mark.slow
def test_without_boxes_frames_are_learned_from_and_a_relational_head_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    root, out = write_own_videos(tmp_path / "data", boxes=False), tmp_path / "c.zarr"
    pixels = {"weights": random_weights(out), "crop": 32, "frames": 8, "workers": 0}
    config = ExtractConfig(dataset="folder", data_root=root, out=out, instances=1, **pixels)  # type: ignore[arg-type]
    assert not extract(config, Silent()).has_boxes
    with pytest.raises(InputError, match="none of the 6 training clips has a box"):
        fit(make_run_config("sfi", out, preset="small"), Silent())
