"""What files of boxes state beside corners is kept to or said: sizes of pictures, turns, boxes twice, other columns."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow
import pytest
from fixtures.own_videos import cvat_of_video
from pyarrow import parquet

from ifcar.errors import InputError
from ifcar.extract.datasets.box_files.reading import SeenIn, read_box_files, tracks_of
from ifcar.extract.datasets.box_notes import BoxNotes
from ifcar.extract.tracks import Tracks

SIZE, BOX = (160, 120), (20.0, 16.0, 100.0, 80.0)


def read(path: Path, video: str = "cup") -> tuple[Tracks, list[str]]:
    """Return the tracks of a video of `SIZE`, and all notes."""
    found, notes = read_box_files([(path, PurePosixPath(path.name))], ["cup", "7"]), BoxNotes()
    own = found.videos[video]
    seen_in = SeenIn.of(own, None, SIZE)
    return tracks_of(video, own, {"hand"}, seen_in, notes), [*found.notes, *notes.lines()]


def coco(path: Path, *annotations: dict[str, Any], **size: int) -> Path:
    content = {
        "images": [{"id": 1, "file_name": "cup/0001.jpg", **size}],
        "categories": [{"id": 1, "name": "hand"}],
        "annotations": [{"id": k, "image_id": 1, "category_id": 1, **own} for k, own in enumerate(annotations)],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def cvat(path: Path, size: tuple[int, int], more: str = "") -> Path:
    x1, y1, x2, y2 = BOX
    box = f'<box label="hand" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"{more}></box>'
    image = f'<image name="frame_000000" width="{size[0]}" height="{size[1]}">{box}</image>'
    path.write_text(cvat_of_video("cup.mp4", image), encoding="utf-8")
    return path


def voc(path: Path, size: tuple[int, int]) -> Path:
    x1, y1, x2, y2 = BOX
    path.write_text(
        f"<annotation><folder>cup</folder><filename>1.jpg</filename><size><width>{size[0]}</width><height>{size[1]}"
        f"</height></size><object><name>hand</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object></annotation>",
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("form", ["coco", "cvat", "voc"])
@pytest.mark.parametrize("times", [1, 4])
def test_boxes_lie_where_they_lie_in_pictures_of_the_stated_size(form: str, times: int, tmp_path: Path) -> None:
    stated = (SIZE[0] * times, SIZE[1] * times)
    x1, y1, x2, y2 = BOX
    if form == "coco":
        path = coco(tmp_path / "b.json", {"bbox": [x1, y1, x2 - x1, y2 - y1]}, width=stated[0], height=stated[1])
    else:
        path = (cvat if form == "cvat" else voc)(tmp_path / "b.xml", stated)
    tracks, notes = read(path)
    assert tracks.boxes[0, 0].tolist() == pytest.approx([value / times for value in BOX])
    assert ("1 video are scaled" in " ".join(notes) and "640 × 480 beside 160 × 120" in notes[-1]) == (times > 1)


def test_pictures_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'cup': boxes of pictures of another shape than its frames, 120 × 160 beside"):
        read(cvat(tmp_path / "b.xml", (120, 160)))


def test_turned_boxes_are_refused(tmp_path: Path) -> None:
    assert read(cvat(tmp_path / "b.xml", SIZE, ' rotation="0.0"'))[0].categories.shape == (1,)
    turned = [
        cvat(tmp_path / "b.xml", SIZE, ' rotation="90.0"'),
        coco(tmp_path / "b.json", {"bbox": [1, 2, 3, 4], "attributes": {"rotation": 90.0}}),
    ]
    for path in turned:
        with pytest.raises(InputError, match=r"a box turned by '?90.0'? degrees"):
            read(path)


def test_a_box_that_is_listed_twice_is_one_and_counted(tmp_path: Path) -> None:
    once, twice = {"bbox": [1, 2, 3, 4]}, {"bbox": [11, 12, 3, 4]}
    tracks, notes = read(coco(tmp_path / "b.json", once, twice, once, twice))
    assert len(tracks.categories) == 2 and "2 boxes are listed twice and taken once" in notes[-1]


def test_numbers_name_videos_and_tracks_and_other_columns_are_listed(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {"video": [7, 7], "frame": [1, 1], "label": ["hand", "hand"], "score": [0.1, 0.9]}
    columns |= {name: [float(k), k + 5.0] for k, name in enumerate(("x1", "y1", "x2", "y2"))}
    columns |= {"x2": [30.0, 30.0], "y2": [40.0, 40.0], "track": [1234567.0, 1234568.0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "b.parquet")
    rows = [list(columns), *zip(*columns.values(), strict=True)]
    (tmp_path / "b.csv").write_text("\n".join(",".join(map(str, row)) for row in rows), encoding="utf-8")
    for path in (tmp_path / "b.parquet", tmp_path / "b.csv"):
        tracks, notes = read(path, "7")
        assert len(tracks.categories) == 2 and np.isfinite(tracks.boxes).all()
        assert "boxes: columns that are not read: 'score'" in notes


def test_an_export_of_a_video_without_a_box_has_none(tmp_path: Path) -> None:
    path = tmp_path / "b.xml"
    path.write_text(cvat_of_video("cup.mp4", ""), encoding="utf-8")
    assert not read_box_files([(path, PurePosixPath(path.name))], ["cup"]).videos
    path.write_text("<annotations></annotations>", encoding="utf-8")
    with pytest.raises(InputError, match="neither a track nor a picture"):
        read(path)
