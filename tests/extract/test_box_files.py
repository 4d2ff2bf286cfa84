"""Every form of box files says the same of one video; what is not of its form is one line with its place."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow
import pytest
from fixtures.own_videos import cvat_of_video, cvat_track
from fixtures.something_else import label, record
from pyarrow import parquet

from ifcar.cache.schema import Category
from ifcar.errors import InputError
from ifcar.extract.datasets.box_files.contract import Box
from ifcar.extract.datasets.box_files.one_video import read_one_video
from ifcar.extract.datasets.box_files.reading import (
    SeenIn,
    VideoBoxes,
    box_paths,
    read_box_files,
    subject_kinds,
    tracks_of,
)
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.datasets.proposals import read_proposals
from ifcar.extract.datasets.something_else import SomethingElse
from ifcar.extract.frame_clock import FrameClock
from ifcar.extract.tracks import Tracks

SIZE = (64, 48)
# frame from 0 → class → corners; frame 1 is listed without a box where a form can say so
BOXES = {
    0: {"hand": (8.0, 12.0, 24.0, 36.0), "cup": (32.0, 24.0, 48.0, 36.0)},
    3: {"hand": (16.0, 12.0, 32.0, 36.0)},
}
CLASSES = ("hand", "cup")
CLOCK = FrameClock(num_frames=24, fps=12.0)


def flat() -> list[tuple[int, str, tuple[float, ...]]]:
    return [(frame, kind, box) for frame, found in BOXES.items() for kind, box in found.items()]


def sides(box: tuple[float, ...]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def coco_content(first: int = 1) -> dict[str, Any]:
    return {
        "images": [{"id": 7 + f, "file_name": f"Tür/{f + first:06d}.png"} for f in (0, 1, 3)],
        "categories": [{"id": 3 + k, "name": name} for k, name in enumerate(CLASSES)],
        "annotations": [
            {"id": n, "image_id": 7 + f, "category_id": 3 + CLASSES.index(k), "bbox": sides(b)}
            for n, (f, k, b) in enumerate(flat())
        ],
    }


def write_coco(root: Path) -> None:
    write(root / "boxes.json", coco_content())


def write_coco_from_zero(root: Path) -> None:
    write(root / "boxes.json", coco_content(0))


def write_cvat_pictures(root: Path) -> None:
    images = "".join(
        f'<image id="{f}" name="frame_{f:06d}" width="64" height="48">'
        + "".join(
            f'<box label="{k}" xtl="{b[0]}" ytl="{b[1]}" xbr="{b[2]}" ybr="{b[3]}"></box>'
            for g, k, b in flat()
            if g == f
        )
        + "</image>"
        for f in (0, 1, 3)
    )
    write(root / "boxes.xml", cvat_of_video("Tür.mp4", images))


def write_voc(root: Path) -> None:
    for frame in (0, 1, 3):
        objects = "".join(
            f"<object><name>{k}</name><bndbox><xmin>{b[0] + 1}</xmin><ymin>{b[1] + 1}</ymin><xmax>{b[2]}</xmax>"
            f"<ymax>{b[3]}</ymax></bndbox></object>"
            for f, k, b in flat()
            if f == frame
        )
        name = f"{frame + 1:04d}"
        write(
            root / "boxes" / "Tür" / f"{name}.xml", f"<annotation><filename>{name}.jpg</filename>{objects}</annotation>"
        )


def write_yolo(root: Path) -> None:
    for frame in (0, 1, 3):
        rows = [
            f"{CLASSES.index(k)} {(b[0] + b[2]) / 128} {(b[1] + b[3]) / 96} {(b[2] - b[0]) / 64} {(b[3] - b[1]) / 48}"
            for f, k, b in flat()
            if f == frame
        ]
        write(root / "boxes" / f"Tür_{frame + 1:05d}.txt", "\n".join(rows))
    write(root / "boxes" / "classes.txt", "hand\ncup\n")


def write_mot(root: Path) -> None:
    rows = [
        ",".join(
            map(str, [f + 1, CLASSES.index(k) + 1, b[0] + 1, b[1] + 1, *sides(b)[2:], 1, CLASSES.index(k) + 1, 1.0])
        )
        for f, k, b in flat()
    ]
    write(root / "boxes" / "Tür" / "gt" / "gt.txt", "\n".join([*rows, "2,9,1,1,5,5,0,1,1"]))
    write(root / "boxes" / "Tür" / "gt" / "labels.txt", "hand\ncup\n")


def write_via(root: Path) -> None:
    def region(kind: str, box: tuple[float, ...]) -> dict[str, Any]:
        shape = dict(zip(("x", "y", "width", "height"), sides(box), strict=True))
        return {"shape_attributes": {"name": "rect", **shape}, "region_attributes": {"class": kind}}

    pictures = {
        f"p{f}": {"filename": f"Tür_{f + 1}.jpg", "size": 1, "regions": [region(k, b) for g, k, b in flat() if g == f]}
        for f in (0, 1, 3)
    }
    write(root / "boxes.json", {"_via_settings": {}, "_via_img_metadata": pictures})


def write_something_else(root: Path) -> None:
    write(
        root / "boxes.json",
        {"Tür": [record("Tür", f, [label(k, b) for g, k, b in flat() if g == f]) for f in (0, 1, 3)]},
    )


def write_csv(root: Path) -> None:
    rows = [",".join(map(str, ["Tür.mp4", f + 1, *b, k])) for f, k, b in flat()]
    write(root / "boxes.csv", "\n".join(["video,frame,x1,y1,x2,y2,label", *rows]))


def write_parquet(root: Path) -> None:
    frames, kinds, _ = zip(*flat(), strict=True)
    columns = {"video": ["Tür"] * len(frames), "frame": [frame + 1 for frame in frames], "label": kinds}
    corner = {name: [box[place] for _, _, box in flat()] for place, name in enumerate(("x1", "y1", "x2", "y2"))}
    root.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table({**columns, **corner, "track": [None] * len(flat())}), root / "boxes.parquet")


Region = tuple[str, list[float], str, tuple[float, ...]]


def via3_content(files: dict[str, tuple[str, int]], regions: list[Region]) -> Any:
    """Return VIA 3's project of files (name, type) by view, and regions (view, z, key of the class, corners)."""
    return {
        "project": {"pname": "p"},
        "config": {},
        "attribute": {"1": {"aname": "Class", "type": 3, "options": {"H": "hand", "C": "cup"}}},
        "file": {view: {"fid": view, "fname": name, "type": kind} for view, (name, kind) in files.items()},
        "view": {view: {"fid_list": [view]} for view in files},
        "metadata": {
            f"m{place}": {"vid": view, "flg": 0, "z": z, "xy": [2, *sides(box)] if box else [], "av": {"1": key}}
            for place, (view, z, key, box) in enumerate(regions)
        },
    }


def write_via3(root: Path) -> None:
    files = {str(f): (f"Tür/{f + 1:04d}.jpg", 2) for f in (0, 1, 3)}
    write(root / "boxes.json", via3_content(files, [(str(f), [], k[0].upper(), b) for f, k, b in flat()]))


WRITERS = {
    "COCO JSON": write_coco,
    "COCO JSON, from 0": write_coco_from_zero,
    "CVAT XML": write_cvat_pictures,
    "Pascal VOC XML": write_voc,
    "YOLO text": write_yolo,
    "MOT text": write_mot,
    "VIA JSON": write_via,
    "Something-Else JSON": write_something_else,
    "CSV": write_csv,
    "Parquet": write_parquet,
    "VIA 3 JSON": write_via3,
}


def read(root: Path, subjects: str | None = None) -> tuple[Tracks, list[str]]:
    found = read_box_files(box_paths(root), ["Tür", "other"])
    assert list(found.videos) == ["Tür"], found.videos
    video, box_notes = found.videos["Tür"], BoxNotes()
    chosen = subject_kinds(subjects, found.kinds())
    tracks = tracks_of("Tür", video, chosen, SeenIn(size=SIZE if video.in_shares else None), box_notes)
    return tracks, [*found.notes, *box_notes.lines()]


@pytest.mark.parametrize("form", WRITERS)
def test_each_form_gives_the_same_tracks(form: str, tmp_path: Path) -> None:
    WRITERS[form](tmp_path)
    tracks, notes = read(tmp_path)
    assert f"read as {form.split(',')[0]}, " in notes[0] and len(notes) == 1
    assert set(tracks.frames.tolist()) >= {0, 3} and set(tracks.frames.tolist()) <= {0, 1, 3}
    kinds = {int(Category.SUBJECT): "hand", int(Category.OBJECT): "cup"}
    assert sorted(tracks.categories.tolist()) == sorted(kinds)
    for column, category in enumerate(tracks.categories.tolist()):
        for place, frame in enumerate(tracks.frames.tolist()):
            expected = BOXES.get(frame, {}).get(kinds[category], (np.nan,) * 4)
            np.testing.assert_allclose(tracks.boxes[place, column], expected, atol=1e-4)


def test_seconds_of_a_video_are_the_frames_shown_then(tmp_path: Path) -> None:
    """VIA 3 rounds seconds to thousandths: 1.083 is frame 13 of 12 a second, which begins at 1.0833."""
    regions = [("1", [0.0], "H", BOXES[0]["hand"]), ("1", [1.083], "H", BOXES[3]["hand"]), ("1", [1, 2], "C", ())]
    write(tmp_path / "boxes.json", via3_content({"1": ("Tür.mp4", 4)}, regions))
    found = read_box_files(box_paths(tmp_path), ["Tür"])
    tracks = tracks_of("Tür", found.videos["Tür"], {"hand"}, SeenIn(clock=CLOCK), BoxNotes())
    assert tracks.frames.tolist() == [0, 13] and found.notes == ["boxes: 1 file read as VIA 3 JSON, seconds"]
    np.testing.assert_allclose(tracks.boxes[:, 0], [BOXES[0]["hand"], BOXES[3]["hand"]])


@pytest.mark.parametrize("form", WRITERS)
def test_a_data_sets_clips_take_the_boxes_of_each_form(form: str, tmp_path: Path) -> None:
    """A clip is named by its id or by its source; records and proposals count at the data set's rate."""
    WRITERS[form](tmp_path)
    source = tmp_path / "Tür.mp4"
    clips = [Clip(clip_id=name, source=source, frame_size=SIZE) for name in ("Tür", "other")]
    if form != "Something-Else JSON":
        clips[0] = replace(clips[0], clip_id="Tür,0-1")
    path = next(path for path in (tmp_path / "boxes", *tmp_path.glob("boxes.*")) if path.exists())
    found = read_proposals(path, clips, 4)
    assert found.of_source == (form != "Something-Else JSON")
    assert found.boxes(clips[0].clip_id).frames.tolist()[0] == 0
    assert np.isfinite(found.boxes(clips[0].clip_id).boxes).sum() == 4 * len(flat())
    chosen = read_proposals(path, clips, 4, subjects="cup") if found.of_source else None
    assert chosen is None or chosen.digest != found.digest  # other categories, another cache
    assert chosen is None or sorted(chosen.boxes(clips[0].clip_id).categories.tolist()) == [1, 2]


def test_frames_between_the_boxes_of_a_cvat_track_lie_on_the_line_but_for_those_outside(tmp_path: Path) -> None:
    start, end, back = (0.0, 0.0, 10.0, 10.0), (8.0, 4.0, 18.0, 14.0), (30.0, 20.0, 40.0, 30.0)
    track = cvat_track(0, "hand", {0: (start, 0), 4: (end, 0), 6: (back, 1), 9: (back, 0)})
    write(tmp_path / "boxes.xml", cvat_of_video("Tür.mp4", track))
    tracks, _ = read(tmp_path)
    expected = {f: (2.0 * f, 1.0 * f, 10 + 2.0 * f, 10 + 1.0 * f) for f in range(5)} | {5: end, 9: back}
    assert tracks.frames.tolist() == sorted(expected)
    np.testing.assert_allclose(tracks.boxes[:, 0], [expected[f] for f in sorted(expected)])


def test_subjects_are_hands_and_persons_or_those_that_are_named(tmp_path: Path) -> None:
    write_csv(tmp_path)
    subjects = [Category.SUBJECT, Category.OBJECT]  # tracks in the order of their classes: cup, hand
    assert read(tmp_path)[0].categories.tolist() == subjects[::-1]
    assert read(tmp_path, "Cup")[0].categories.tolist() == subjects
    assert read(tmp_path, "cup, hand")[0].categories.tolist() == [Category.SUBJECT] * 2


HEADER = "video,frame,x1,y1,x2,y2,label"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("boxes.json", "[1, 2]", "no known form; expected one of"),
        ("boxes.json", {"images": 3}, "no known form"),
        ("boxes.csv", f"{HEADER}\na,0,1,1,2,2,hand", "line 2: frame '0'; expected a whole number from 1"),
        ("boxes.csv", f"{HEADER}\na,1,1,nan,2,2,hand", "line 2: box ['1', 'nan', '2', '2']; expected four finite"),
        ("boxes.csv", f"{HEADER}\na,1,1,1,2,2,", "line 2: label is empty"),
        ("boxes.csv", "video,frame,x1,y1,x2,y2\na,1,1,1,2,2", "lacks the column label"),
        ("boxes.csv", "video,frame,label,x,y,w,h\na,1,hand,1,1,2,2", "lacks the column x1; expected frame, label, x1"),
        ("boxes.csv", f"{HEADER}\na,1,1,1,2,2,hand".replace(",", ";"), "separated by ';'; separate columns by"),
        ("boxes.csv", "\n", "boxes.csv: is empty; expected one of COCO JSON"),
        ("boxes.txt", "1,1,2,3,4,5\n1,x,2,3,4,5", "line 2: '1,x,2,3,4,5'; expected frame, id, x, y, width, height"),
        ("boxes/a_1.txt", "0 0.5 0.5 0.1\n", "no known form"),
        ("boxes/a_1.txt", "0 0.5 0.5 0.1 0.1\n0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2", "line 2: 9 values; expected class"),
        ("boxes/a_1.txt", "0 320 240 50 50", "line 1: box ['320', '240', '50', '50']; expected shares"),
        ("boxes/a.txt", "0 0.5 0.5 0.1 0.1", "'a.txt' does not end with a frame number"),
        ("boxes.xml", "<annotations><track", "damaged XML"),
        ("boxes.xml", '<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "declares a DOCTYPE"),
        ("boxes.xml", "<annotations/>", "neither a track nor a picture"),
        ("boxes.xml", "<annotations><track id='0' label='a'><polygon/></track></annotations>", "has a polygon"),
        (
            "boxes.xml",
            "<annotations><track id='4' label='a'><box frame='x'/></track></annotations>",
            "track 4: frame 'x'",
        ),
        (
            "boxes.xml",
            "<annotation><filename>a_1.jpg</filename><object><name>b</name></object></annotation>",
            "object 1: no bndbox",
        ),
        ("boxes.json", {**coco_content(), "annotations": [{"image_id": [], "category_id": 3}]}, "annotations[0]: "),
        (
            "boxes.json",
            {**coco_content(), "annotations": [{"image_id": 7, "category_id": 3}]},
            "annotations[0]: no bbox",
        ),
        ("boxes.json", {**coco_content(), "images": [{"id": 1, "file_name": "a.jpg"}]}, "image 1: the picture's name"),
        (
            "boxes.json",
            {
                "a": {
                    "filename": "a_1.jpg",
                    "regions": [{"shape_attributes": {"name": "circle"}, "region_attributes": {}}],
                }
            },
            "region 1: a 'circle'; expected rect",
        ),
        ("boxes.parquet", "PAR1", "damaged Parquet"),
        ("boxes.json", via3_content({"1": ("a.mp4", 4)}, [("1", [1, 2], "H", (1, 1, 2, 2))]), "z is [1, 2]; expected"),
        ("boxes.json", via3_content({"1": ("a.mp4", 8)}, []), "files of type [8]; expected pictures (2) or videos (4)"),
    ],
)
def test_bad_boxes_are_one_line(name: str, content: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path / name, content)
    with pytest.raises(InputError) as error:
        read_box_files(box_paths(tmp_path), ["a"])
    assert str(tmp_path / name) in str(error.value) and message in str(error.value) and "\n" not in str(error.value)


def test_a_frame_in_two_files_and_a_track_twice_in_a_frame_are_refused(tmp_path: Path) -> None:
    write_csv(tmp_path)
    write(tmp_path / "boxes" / "more.csv", f"{HEADER}\nTür,4,1,1,2,2,cup")
    with pytest.raises(InputError, match=r"frame 4 of video 'Tür' is in .* too"):
        read(tmp_path)
    write(tmp_path / "boxes" / "more.csv", f"{HEADER},track\nTür,9,1,1,2,2,cup,5\nTür,9,3,3,5,5,cup,5")
    with pytest.raises(InputError, match="frame 9 from 1: two boxes of 'cup' are of track '5'"):
        read(tmp_path)
    box = Box(520, "cup", (1, 1, 2, 2))
    assert VideoBoxes(path=tmp_path, in_shares=False, in_ms=True).place(box) == "second 0.52"
    assert VideoBoxes(path=tmp_path, in_shares=False).place(box) == "frame 520 from 0"


def test_a_coco_file_in_place_of_something_elses_is_named(tmp_path: Path) -> None:
    write(tmp_path / "annotations.json", {"info": {}, **coco_content()})
    with pytest.raises(InputError, match=r"annotations\.json: COCO JSON, as it has 'info'; expected Something-Else's"):
        SomethingElse(tmp_path).listing(needs_pixels=False)


def test_one_video_is_read_from_any_form_and_records_keep_their_clock(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco")
    write_something_else(tmp_path / "records")
    ours: dict[str, Any] = {"source": tmp_path / "v.mp4", "subjects": None}
    of_coco = read_one_video(tmp_path / "coco" / "boxes.json", None, "new", own=False, **ours)
    assert (of_coco.clip_id, of_coco.of_source, of_coco.tracks.frames.tolist()) == ("Tür", True, [0, 1, 3])
    records = tmp_path / "records" / "boxes.json"
    assert not read_one_video(records, None, "Tür", own=False, **ours).of_source
    assert read_one_video(records, None, "Tür", own=True, **ours).of_source
    with pytest.raises(
        InputError, match=r"choose a video with --clip, as it has no boxes of 'Tuer', did you mean 'Tür'"
    ):
        read_one_video(tmp_path / "coco" / "boxes.json", "Tuer", "x", own=True, **ours)
    assert PurePosixPath("boxes.json") == box_paths(tmp_path / "coco")[0][1]


def damaged(value: Any, chance: random.Random) -> Any:
    if chance.random() < 0.02:
        return chance.choice([None, True, -1, "", "x", [], {}, [1], {"a": 1}, 10**30, "nan", 0.5])
    if isinstance(value, dict):
        return {key: damaged(own, chance) for key, own in value.items() if chance.random() > 0.01}
    return [damaged(own, chance) for own in value] if isinstance(value, list) else value


@pytest.mark.parametrize("form", WRITERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(form: str, tmp_path: Path) -> None:
    chance, num_refused = random.Random(form), 0
    WRITERS[form](tmp_path)
    intact = {path: path.read_bytes().decode("latin-1") for path, _ in box_paths(tmp_path)}
    for _ in range(60):
        for path, text in intact.items():
            if path.suffix == ".json":
                text = json.dumps(damaged(json.loads(text.encode("latin-1")), chance))
            else:
                place, more = (
                    chance.randrange(len(text) + 1),
                    chance.choice(["", "-", "x", '"', "9", "<", ",", "\n", " ", "é"]),
                )
                text = text[:place] + more + text[place + chance.randint(0, 3) :]
            path.write_bytes(text.encode("latin-1"))
        try:
            found = read_box_files(box_paths(tmp_path), ["Tür"])
            for name, video in found.videos.items():
                tracks_of(name, video, {"hand"}, SeenIn(size=SIZE, clock=CLOCK if video.in_ms else None), BoxNotes())
        except InputError as error:
            num_refused += 1
            assert "\n" not in str(error) and str(tmp_path) in str(error)
    assert num_refused
