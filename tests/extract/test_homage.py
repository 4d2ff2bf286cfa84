"""Home Action Genome in both layouts: windows of recordings, their cameras, labels and sound, to a cache."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.homage import ACTIONS, ATOMIC, FILMS, actions_path, film_path, list_path, write_homage
from fixtures.sounds import tone

from ifcar.cache.open import open_cache
from ifcar.cache.schema import Split, Status
from ifcar.config_fields import words_of
from ifcar.errors import IfcarError, InputError, MissingDataError
from ifcar.extract.backbones.catalog import build_backbone, resolve_backbone
from ifcar.extract.datasets.homage import Homage, windows
from ifcar.extract.datasets.homage_few_shot import few_shot_parts
from ifcar.extract.log_mel import PATCH_SAMPLES, log_mel
from ifcar.extract.weights import load_weights
from ifcar.pipelines.extract import ExtractResult, extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.progress import Silent

WINDOWS = {  # seconds at which they begin: every 4 of training, every 3 of tests, up to the shortest camera's end
    "p0001_r001_a000": [0, 4],
    "p0002_r002_a001": [0],
    "p0003_r001_a000": [0, 3],
    "p0004_r001_a001": [0, 3, 6],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_homage(tmp_path_factory.mktemp("homage") / "layout-1" / "hacgen", 1).parent


@pytest.fixture
def copied(root: Path, tmp_path: Path) -> Path:
    shutil.copytree(root, tmp_path / "data")
    return tmp_path / "data"


def extracted(root: Path, out: Path, **options: object) -> ExtractResult:
    chosen = {"frames": 4, "crop": 32, "instances": 1, "workers": 0, **options}
    if options["backbone"] == "vggish":
        del chosen["crop"]
    return extract(ExtractConfig(dataset="homage", data_root=root, out=out, **chosen), Silent())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def seen(root: Path) -> tuple[Path, ExtractResult]:
    out = root.parent / "seen.zarr"
    return out, extracted(root, out, backbone="none")


def shows(name: str, begin_sec: int, seconds: float) -> set[str]:
    """The actions of which some frame is shown within a window, frame by frame."""
    found = set()
    for first, last, action in ACTIONS[name]:
        for frame in range(first, last + 1):
            if (frame - 1) / 30 < begin_sec + seconds and frame / 30 > begin_sec:
                found.add(action.replace(" ", "_"))
    return found


def test_clips_are_windows_of_every_camera_and_segments_are_shared(seen: tuple[Path, ExtractResult]) -> None:
    reader = open_cache(seen[0])
    clips = reader.clips
    expected = []
    for name, begins in WINDOWS.items():
        start, _, activity = name.rpartition("_")
        for begin in begins:
            for view in FILMS[name]:
                camera = f"third-{view}" if view else "ego"
                expected.append((f"{start}_v{view:03d}_{activity}_t{begin:04d}", f"{name}_t{begin:04d}", camera))
    assert list(zip(clips.ids, clips.segments, clips.cameras, strict=True)) == expected
    assert (reader.status() == Status.DONE).all()
    for clip_id, frames in zip(clips.ids, reader.table("frame_indices"), strict=True):
        begin, length = int(clip_id[-4:]), 2.5 if "p0002" in clip_id else 4.0
        assert frames.tolist() == [int((begin + (k + 0.5) * length / 4) * 30) for k in range(4)]
    reader.close()


def test_protocols_hold_both_label_spaces_and_the_lists_splits(seen: tuple[Path, ExtractResult]) -> None:
    reader = open_cache(seen[0])
    clips = reader.clips
    assert reader.protocol_names() == ["split-1", "split-2"]
    tested = {"split-1": "p0003_r001_a000", "split-2": "p0004_r001_a001"}
    for protocol, test_name in tested.items():
        table = reader.protocol(protocol)
        activity, atomic = table.spaces
        assert (activity.name, activity.kind, activity.classes) == ("activity", "single", ("wash_dishes", "set_table"))
        assert (atomic.name, atomic.kind, atomic.classes) == ("atomic", "multi", ATOMIC)
        assert atomic.unlabelled == "negative" and table.group_kind == "recording"
        for place, segment in enumerate(clips.segments):
            name, begin = segment[:-6], int(segment[-4:])
            trained = name in ("p0001_r001_a000", "p0002_r002_a001")
            expected = Split.TEST if name == test_name else Split.TRAIN if trained else Split.NONE
            assert table.split[place] == expected
            assert table.group_names[table.groups[place]] == name
            assert activity.targets[place] == int(name.endswith("a001"))
            if name == "p0004_r001_a001":  # its file is empty
                assert (atomic.targets[place] == -1).all()
            else:
                shown = {ATOMIC[k] for k in np.flatnonzero(atomic.targets[place])}
                assert shown == shows(name, begin, 2.5 if "p0002" in name else 4.0)
    reader.close()


def test_what_is_odd_in_the_files_is_said(seen: tuple[Path, ExtractResult]) -> None:
    notes = "\n".join(seen[1].notes)
    for said in (
        "p0030_r001_a000: left out, listed with two activities, set_table (",
        "train_list.csv line 3) and wash_dishes (",
        "1 recording has no ego camera (v000); the first: p0003_r001_a000",
        "1 file of atomic actions is empty: an activity alone; the first: ",
        "p0004_r001_a001__aa.json",
        "1 recording is cut at the shortest camera, as p0003_r001_a000, p0003_r001_v001_a000.mkv of 7.5 s",
        "1 film is of recordings that no list names",
    ):
        assert said in notes


@pytest.mark.slow
def test_layout_2_gives_the_same_windows_sound_to_vggish_and_leaves_scene_graphs(tmp_path: Path) -> None:
    """Class lists are absent there, so that the lists and files name the classes; only ego films have sound."""
    root, out = write_homage(tmp_path / "layout-2", 2), tmp_path / "heard.zarr"
    result = extracted(root, out, backbone="vggish", weights="random:0", grid=True, frames=8, cameras=("ego",))
    notes = "\n".join(result.notes)
    assert "1 file of scene graphs is found, not read" in notes
    assert "protocol split-1: left out, there is no val_list.csv" in notes
    assert "no classInd.txt: the 2 activities" in notes and "no classInd_atomic.txt: the 3 atomic actions" in notes
    reader = open_cache(out)
    assert set(reader.clips.cameras) == {"ego"} and result.num_failed == 0
    assert "p0001_r001_a000_t0004" in reader.clips.segments
    assert not reader.table("boxes").any() and "instance_features" not in reader.spec
    assert reader.spec.shape("grid_features") == (8, 512, 6, 4)
    assert reader.protocol("split-2").spaces[1].classes == ATOMIC
    backbone = build_backbone(resolve_backbone("vggish", num_frames=8))
    load_weights(backbone, "random:0")
    row = reader.clip_ids.index("p0001_r001_v000_a000_t0004")
    frame = int(reader.table("frame_indices")[row][3])
    first = round((frame + 0.5) / 8 * 16_000) - PATCH_SAMPLES // 2
    heard = np.round(tone(500, 9) * 32767)[first : first + PATCH_SAMPLES] / 32768
    with torch.no_grad():
        (expected,) = backbone(torch.from_numpy(log_mel(heard.astype(np.float32)))[None, None]).values()
    found = reader.read_rows("grid_features", np.array([row]))[0, 3]
    np.testing.assert_allclose(found, expected[0, :, 0].numpy(), rtol=0.02, atol=0.02)
    reader.close()


def test_a_command_line_states_cameras_by_name() -> None:
    words = words_of(ExtractConfig(dataset="homage", cameras=("ego", "third-1")))
    assert words == ["--dataset", "homage", "--cameras", "ego,third-1"]


@pytest.mark.parametrize("ignored", [{"crop": 64}, {"pooled": "7-max"}])
def test_options_of_pictures_are_refused_where_sound_is_read(ignored: dict[str, object], tmp_path: Path) -> None:
    (name, value) = next(iter(ignored.items()))
    with pytest.raises(InputError, match=f"--{name} {value} would be ignored: backbone 'vggish' reads sound"):
        config = ExtractConfig(dataset="homage", out=tmp_path / "c.zarr", backbone="vggish", **ignored)  # type: ignore[arg-type]
        extract(config, Silent())


def test_films_without_sound_are_failed_clips_with_their_reason(root: Path, tmp_path: Path) -> None:
    result = extracted(root, tmp_path / "c.zarr", backbone="vggish", weights="random:0", cameras=("third-1",))
    assert result.num_failed == result.num_rows and result.failures_file is not None
    reasons = {json.loads(line)["reason"] for line in result.failures_file.read_text().splitlines()}
    assert all("video streams only; expected a sound track" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("length_sec", "stride_sec", "begins"),
    [
        (0.5, 4, [0]),
        (3.95, 4, [0]),
        (4, 4, [0]),
        (7.8, 4, [0]),
        (7.95, 4, [0, 4]),
        (10, 3, [0, 3, 6]),
        (12, 4, [0, 4, 8]),
    ],
)
def test_windows_worked_by_hand(length_sec: float, stride_sec: float, begins: list[int]) -> None:
    found = windows(length_sec, 4, stride_sec)
    assert [begin for begin, _ in found] == begins
    assert all(stop - begin == (length_sec if length_sec < 3.9 else 4) for begin, stop in found)


def bad_row(root: Path) -> None:
    list_path(root / "hacgen", 1, "train").write_text("p0001_r001_a000,wash,dishes\n")


def bad_name(root: Path) -> None:
    list_path(root / "hacgen", 1, "train").write_text("p0001_r001_v000_a000,wash dishes\n")


def bad_activity(root: Path) -> None:
    list_path(root / "hacgen", 1, "train").write_text("p0001_r001_a000,wash_dish\n")


def bad_number(root: Path) -> None:
    list_path(root / "hacgen", 1, "train").write_text("p0001_r001_a000,3\n")


def empty_list(root: Path) -> None:
    list_path(root / "hacgen", 1, "train").write_text("\n")


def both_parts(root: Path) -> None:
    list_path(root / "hacgen", 1, "test").write_text("p0001_r001_a000,wash_dishes\n")


def classes(text: str) -> Callable[[Path], object]:
    return lambda root: (root / "hacgen/classInd.txt").write_text(text)


def bad_action(root: Path) -> None:
    entry = {"frame_start": 0, "frame_end": 30, "class": "hold_cup"}
    actions_path(root / "hacgen", 1, "p0001_r001_a000").write_text(json.dumps([entry]))


def strange_action(root: Path) -> None:
    entry = {"frame_start": 1, "frame_end": 30, "class": "hold_cop"}
    actions_path(root / "hacgen", 1, "p0001_r001_a000").write_text(json.dumps([entry]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bad_row, r"train_list\.csv line 1: .* is not a recording and its activity"),
        (bad_name, r"train_list\.csv line 1: .* is not a recording and its activity"),
        (bad_activity, r"activity 'wash_dish' is not in classInd\.txt, did you mean 'wash_dishes'"),
        (bad_number, "activity 3 is no number of a class; expected 1 to 2"),
        (empty_list, "lists no recording"),
        (both_parts, r"test_list\.csv line 1: p0001_r001_a000 is in the train list too \(.*train_list\.csv line 1\)"),
        (classes("1 wash dishes\n2,wash_dishes\n"), r"classInd\.txt line 2: class 'wash_dishes' is listed twice"),
        (classes("1 a\n1 b\n"), r"classInd\.txt line 2: number 1 is listed twice, of 'a' and 'b'"),
        (classes(""), r"classInd\.txt: lists no class; expected lines as '1 take_off_shoes'"),
        (classes("0 a\n1 b\n"), r"classInd\.txt: 2 classes, and one has the number 0; expected num"),
        (classes("1 a\n3 b\n"), r"2 classes, and none has the number 2; expected numbers from 1 to 2, each once"),
        (classes("wash dishes\n"), r"classInd\.txt line 1: 'wash dishes' is not a number and a class"),
        (bad_action, r"aa\.json entry 1: frame_start 0 to frame_end 30; expected whole numbers from 1"),
        (strange_action, r"aa\.json entry 1: class 'hold_cop' is not in classInd_atomic\.txt, did you mean 'hold_cup'"),
    ],
)
def test_a_bad_file_is_one_line_with_its_place(change: object, message: str, copied: Path) -> None:
    change(copied)  # type: ignore[operator]
    with pytest.raises(IfcarError, match=message) as raised:
        Homage(copied).listing(needs_pixels=True)
    assert "\n" not in str(raised.value)


def test_a_row_twice_counts_once_and_numbers_name_classes(copied: Path) -> None:
    path = list_path(copied / "hacgen", 1, "train")
    path.write_text("p0001_r001_a000,1\np0002_r002_a001,2\np0001_r001_a000,wash dishes\n")
    dataset = Homage(copied)
    listing = dataset.listing(needs_pixels=True)
    (said,) = [line for line in listing.problems if "twice" in line]
    assert said.startswith("1 recording is listed twice in a list, and counts once; the first: p0001_r001_a000 (")
    assert said.endswith("train_list.csv line 3)")
    ids = [clip.clip_id for clip in listing.clips]
    targets = dataset.protocols(ids)[0][0].spaces[0].targets
    assert [int(own.split("_")[-2] == "a001") for own in ids] == targets.tolist()


@pytest.mark.slow
def test_films_are_seen_in_their_windows_and_a_damaged_camera_fails_alone(copied: Path, tmp_path: Path) -> None:
    base = copied / "hacgen"
    film_path(base, 1, "p0001_r001_a000", 1).write_bytes(b"no film")
    film_path(base, 1, "p0002_r002_a001", 0).unlink()
    result = extracted(
        copied, tmp_path / "c.zarr", backbone="mobilenet_v2", weights="random:0", grid=True, pooled="none"
    )
    assert "p0002_r002_a001: left out, there is no film of it" in result.notes
    reader = open_cache(result.cache)
    assert reader.spec.shape("grid_features") == (4, 1280, 1, 1) and "instance_features" not in reader.spec
    for clip_id, status, frames in zip(reader.clip_ids, reader.status(), reader.table("frame_indices"), strict=True):
        if clip_id.startswith("p0001_r001_v001"):
            assert status == Status.FAILED
        else:
            assert frames.tolist() == [int((int(clip_id[-4:]) + k + 0.5) * 8) for k in range(4)]
    assert result.num_failed == 2
    reader.close()


def test_missing_lists_films_and_cameras_say_what_to_do(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no clip is of this camera, did you mean 'third-2'\? Known: ego, third-1, th"
    ):
        extracted(copied, tmp_path / "c.zarr", backbone="none", cameras=("third",))
    shutil.rmtree(copied / "hacgen/action_split_data")
    with pytest.raises(MissingDataError, match=r"no film of a listed recording; put the films there as"):
        Homage(copied).listing(needs_pixels=False)
    list_path(copied / "hacgen", 1, "train").unlink()
    with pytest.raises(MissingDataError, match=r"with train_list\.csv and test_list\.csv or val_list\.csv"):
        Homage(copied).prepare()


def test_few_shots_are_recordings_of_novel_activities_and_more_begin_with_fewer() -> None:
    activities = [f"activity {k}" for k in range(10)]
    trained = {f"train {k:03d}": activities[k % 10] for k in range(80)}
    tested = {f"test {k:03d}": activities[k % 10] for k in range(30)}
    parts = few_shot_parts(activities, trained, tested)
    assert list(parts) == ["fewshot-base", *(f"fewshot-{k}{draw}" for k in (1, 5) for draw in ("", "-draw2", "-draw3"))]
    base = {own for name, own in trained.items() if name in parts["fewshot-base"]}
    novel = set(activities) - base
    assert len(novel) == 2
    assert {name for name in parts["fewshot-base"] if name in tested} == {n for n, own in tested.items() if own in base}
    for name, part in parts.items():
        assert all(split == (Split.TRAIN if own in trained else Split.TEST) for own, split in part.items())
        if name != "fewshot-base":
            shots = Counter(trained[own] for own in part if own in trained)
            assert shots == dict.fromkeys(novel, 1 if name.startswith("fewshot-1") else 5)
            assert {own for own in part if own in tested} == {
                own for own, activity in tested.items() if activity in novel
            }
    for draw in ("", "-draw2", "-draw3"):
        assert parts[f"fewshot-1{draw}"].keys() <= parts[f"fewshot-5{draw}"].keys()
    assert len({frozenset(parts[f"fewshot-5{draw}"]) for draw in ("", "-draw2", "-draw3")}) == 3
    assert few_shot_parts(activities[:2], trained, tested) == {}
