"""Files that are not data, and clips with several sources: passed over, or named in a note, in every data set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from fixtures.ava import write_ava
from fixtures.charades import write_charades
from fixtures.hockey import write_hockey
from fixtures.homage import write_homage
from fixtures.litter import litter
from fixtures.something_else import NUM_FRAMES, write_dataset
from fixtures.videos import write_frames, write_video
from fixtures.volleyball import write_volleyball

from ifcar.data_files import is_data
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.decode import probe

WRITERS: dict[str, Callable[[Path], object]] = {
    "something-else": write_dataset,
    "charades": write_charades,
    "ava": write_ava,
    "volleyball": write_volleyball,
    "hockey": write_hockey,
    "homage": partial(write_homage, layout=1),
}


def in_parts(root: Path) -> None:
    """Put the annotations into a folder of two parts."""
    content = json.loads((root / "annotations.json").read_text())
    (root / "annotations.json").unlink()
    (root / "annotations").mkdir()
    for number in range(2):
        part = dict(list(content.items())[number::2])
        (root / "annotations" / f"part{number}.json").write_text(json.dumps(part))


def seen(name: str, root: Path) -> tuple[object, ...]:
    """Everything that a data set says of its folder."""
    dataset = DATASETS.get(name)(root)
    dataset.prepare()
    listing = dataset.listing(needs_pixels=True)
    frames = [probe(clip.source).num_frames for clip in listing.clips if clip.source is not None]
    protocols, notes = dataset.protocols([clip.clip_id for clip in listing.clips])
    assert listing.clips
    return (
        list(listing.clips),
        frames,
        listing.notes,
        listing.problems,
        listing.digest,
        [p.name for p in protocols],
        notes,
    )


def sources(name: str, root: Path) -> tuple[dict[str, str], list[str]]:
    """The source of each clip, relative to the data set's folder, and the notes."""
    listing = DATASETS.get(name)(root).listing(needs_pixels=True)
    found = {c.clip_id: c.source.relative_to(root).as_posix() for c in listing.clips if c.source is not None}
    return found, list(listing.notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_hidden_files_and_those_of_systems_change_nothing(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "data")
    if name == "something-else":
        in_parts(tmp_path / "data")
    clean = seen(name, tmp_path / "data")
    litter(tmp_path / "data")
    assert seen(name, tmp_path / "data") == clean


@pytest.mark.parametrize("name", ["a", "0001.jpg", "desktop.mp4", "thumbs.jpg", "-Ab_9", "icon", "MACOSX", "a.b"])
def test_names_of_clips_are_data(name: str) -> None:
    assert is_data(name)


@pytest.mark.parametrize("content", [(), ("Thumbs.db",), ("._0001.jpg", "cover.jpg", "notes.txt")])
def test_a_folder_without_pictures_does_not_shadow_a_video(content: tuple[str, ...], tmp_path: Path) -> None:
    write_dataset(tmp_path, num_clips=4)
    shutil.rmtree(tmp_path / "frames" / "101")
    (tmp_path / "frames" / "101").mkdir()
    for file in content:
        (tmp_path / "frames" / "101" / file).write_bytes(b"x")
    assert sources("something-else", tmp_path)[0]["101"] == "frames/101"  # and fails with the reason
    write_video(tmp_path / "videos" / "101.mp4", NUM_FRAMES, fps=12)
    found, notes = sources("something-else", tmp_path)
    assert found == {"100": "frames/100", "101": "videos/101.mp4", "102": "frames/102", "103": "frames/103"}
    assert notes == [
        f"1 source holds nothing, so that another of the same name is read, the first: {tmp_path / 'frames' / '101'}"
    ]


def test_an_empty_video_does_not_shadow_a_good_one(tmp_path: Path) -> None:
    write_hockey(tmp_path)
    (tmp_path / "videos" / "game1.webm").touch()
    found, notes = sources("hockey", tmp_path)
    assert found["game1-0"] == "videos/game1.mp4" and len(notes) == 1 and "game1.webm" in notes[0]


@pytest.mark.parametrize(
    ("name", "added", "read", "other"),
    [
        ("something-else", "videos/101.MP4", "frames/101", "videos/101.MP4"),
        ("something-else", "videos/101.webm", "frames/101", "videos/101.webm"),
        ("hockey", "videos/game1.webm", "videos/game1.webm", "videos/game1.mp4"),
        ("ava", "frames/b_2", "frames/b_2", "videos/b_2.mp4"),
        ("charades", "Charades_v1_rgb/TRA0A", "Charades_v1_480/TRA0A.mp4", "Charades_v1_rgb/TRA0A"),
    ],
)
def test_of_two_sources_of_a_clip_one_is_read_and_a_note_names_both(
    name: str, added: str, read: str, other: str, tmp_path: Path
) -> None:
    WRITERS[name](tmp_path)
    path = tmp_path / added
    if path.suffix:
        write_video(tmp_path / "added.mp4", NUM_FRAMES, fps=12)
        path.parent.mkdir(exist_ok=True)
        (tmp_path / "added.mp4").rename(path)
    else:
        write_frames(path, 4, f"{path.name}-{{:06d}}.jpg")
    for part in tmp_path.glob("ava_*_v2.2.csv"):  # its folders of frames begin at second 900
        part.write_text(part.read_text().replace(",0002,", ",0902,").replace(",0004,", ",0904,"))
    found, notes = sources(name, tmp_path)
    assert read in found.values() and other not in found.values()
    assert [note for note in notes if "two sources" in note] == [
        "1 clip or video has two sources, of which one is read, the first: "
        f"{tmp_path / read}, and not {tmp_path / other}"
    ]


def test_parts_beside_one_file_of_annotations_are_named_in_a_note(tmp_path: Path) -> None:
    write_dataset(tmp_path, num_clips=4)
    shutil.copytree(tmp_path / "splits", tmp_path / "annotations")
    shutil.copy(tmp_path / "annotations.json", tmp_path / "annotations" / "part.json")
    _, notes = sources("something-else", tmp_path)
    assert notes == [f"{tmp_path / 'annotations'} is not read, as annotations.json is there"]
