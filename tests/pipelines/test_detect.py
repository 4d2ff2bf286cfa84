"""`ifcar detect`: a data set without boxes from its pixels to trained heads, what a kill leaves, and bad input."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.blobs import NUM_FRAMES, SIZE, boxes_at, dies_with_blobs, draw, write_boxless
from fixtures.processes import call, files_below, run
from fixtures.something_something import LISTS, V1, class_of
from fixtures.weights import random_weights
from PIL import Image

from ifcar.cache.open import open_cache
from ifcar.errors import IfcarError, InputError, MissingDataError
from ifcar.extract.coco import CLASSES
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.datasets.detected_boxes import read_facts
from ifcar.extract.datasets.proposals import read_proposals
from ifcar.extract.datasets.something_else import SomethingElse
from ifcar.pipelines.detect import detect
from ifcar.pipelines.detection.config import DetectConfig
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.finetune.start import joint_config
from ifcar.pipelines.fit import fit
from ifcar.pipelines.predict import predict
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.questions import PredictConfig
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig

IDS = [clip_id for ids in LISTS.values() for clip_id in ids]
CLIPS = [Clip(clip_id=clip_id, source=None, frame_size=None) for clip_id in IDS]
BRIEF = ScheduleConfig(kind="stretched", epochs=2, batch_size=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_boxless(tmp_path_factory.mktemp("boxless") / "ssv1")


def options(root: Path, out: Path, **given: Any) -> DetectConfig:
    """Return options of the blob detector, with masks."""
    values: dict[str, Any] = {"detector": "blobs", "detector_weights": Path("masks"), "out": out, "device": "cpu"}
    if not given.keys() & {"videos"}:
        values |= {"dataset": V1, "data_root": root}
    return DetectConfig(**{**values, **given})


@pytest.fixture(scope="module")
def boxes(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detect(options(root, tmp_path_factory.mktemp("boxes") / "boxes.json"), Silent()).boxes


def test_every_box_is_where_it_was_drawn_with_its_class_and_track(boxes: Path) -> None:
    content = json.loads(boxes.read_text())
    assert list(content) == IDS
    for ids in LISTS.values():
        for place, clip_id in enumerate(ids):
            assert [record["name"] for record in content[clip_id]] == [
                f"{clip_id}/{frame + 1:04d}.jpg" for frame in range(NUM_FRAMES)
            ]
            for frame, record in enumerate(content[clip_id]):
                found = {label["category"]: label for label in record["labels"]}
                assert found["person"]["subject"] and not found["cup"]["subject"]
                assert [found[name]["track"] for name in ("person", "cup")] == [0, 1]
                for name, drawn in boxes_at(class_of(place), frame).items():
                    np.testing.assert_allclose(list(found[name]["box2d"].values()), drawn, atol=1.01)
    sizes = json.loads((boxes.parent / "videoid2size.json").read_text())
    assert sizes == {clip_id: list(SIZE) for clip_id in IDS}
    facts = read_facts(boxes)
    assert facts is not None and facts.boxes_sha256 == hashlib.sha256(boxes.read_bytes()).hexdigest()
    assert facts.classes == CLASSES and facts.has_masks and facts.detector["weights"] == "blobs of masks"


@pytest.mark.slow
def test_boxes_and_scores_are_kept_at_frames_of_the_layout_and_read_there(
    root: Path, boxes: Path, tmp_path: Path
) -> None:
    config = ExtractConfig(
        dataset=V1, data_root=root, boxes=boxes, out=tmp_path / "c.zarr", backbone="mobilenet_v2", weights="random:0",
        crop=32, frames=2, layout_frames=4, pooled="none", instances=3, workers=0, device="cpu",
    )  # fmt: skip
    cache = open_cache(extract(config, Silent()).cache)
    number, records = IDS.index("41"), json.loads(boxes.read_text())["41"]
    assert cache.spec.shape("layout_boxes") == (4, 3, 4) and "scores" not in cache.spec
    found = {name: cache.table(f"layout_{name}")[number] for name in ("boxes", "categories", "scores")}
    assert found["categories"].tolist() == [[1, 2, 0]] * 4 and not found["scores"][:, 2].any()
    for step in range(4):
        frame = int(NUM_FRAMES / 4 * (step + 0.5))  # the middle of an equal segment
        x1, y1, x2, y2 = boxes_at(0, frame)["cup"]
        drawn = np.array([(x1 + x2) / 2 / 64, (y1 + y2) / 2 / 48, (x2 - x1) / 64, (y2 - y1) / 48])
        np.testing.assert_allclose(found["boxes"][step, 1], drawn, atol=0.05)
        scores = [label["score"] for label in sorted(records[frame]["labels"], key=lambda own: own["track"])]
        np.testing.assert_allclose(found["scores"][step, :2], scores, rtol=1e-6)
    cache.close()
    settings = {"layout.frames": "layout", "layout.scores": True}
    stlt = make_run_config("stlt", config.out, preset="small", settings=settings, protocol="official", schedule=BRIEF)
    trained = fit(stlt, Silent(), out=tmp_path / "stlt", device="cpu").run
    stored = trained.predictions("test")
    video = root / f"20bn-{V1}" / stored.clip_ids[0]
    again = predict(trained.path, video, Silent(), PredictConfig(device="cpu"), {"detector_weights": Path("masks")})
    np.testing.assert_allclose(again.answers[0].logits[0], stored.logits[0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_from_boxless_videos_to_orn_and_back_to_predictions_from_bare_videos(
    root: Path, boxes: Path, tmp_path: Path
) -> None:
    weights = random_weights(root, "i3d_inception")
    config = ExtractConfig(
        dataset=V1, data_root=root, boxes=boxes, out=tmp_path / "c.zarr", backbone="i3d_inception", weights=weights,
        crop=32, frames=8, framing="stretch", pooled="mask", instances=3, workers=0, device="cpu", batch_size=1,
    )  # fmt: skip
    made = extract(config, Silent())
    assert made.num_failed == 0 and made.has_boxes
    cache = open_cache(made.cache)
    assert cache.identity["boxes"]["detector"]["name"] == "blobs"
    assert cache.spec.array("object_classes").classes == CLASSES
    number = IDS.index("41")
    seen = {name: cache.table(name)[number] for name in ("boxes", "categories", "object_classes", "frame_indices")}
    assert seen["categories"].tolist() == [[1, 2, 0]] * 8
    assert seen["object_classes"][0].tolist() == [CLASSES.index("person"), CLASSES.index("cup"), -1]
    for step, frame in enumerate(seen["frame_indices"].tolist()):
        x1, y1, x2, y2 = boxes_at(0, frame)["cup"]
        drawn = np.array([(x1 + x2) / 2 / 64, (y1 + y2) / 2 / 48, (x2 - x1) / 64, (y2 - y1) / 48])
        np.testing.assert_allclose(seen["boxes"][step, 1], drawn, atol=0.05)
    masks = cache.read_rows("masks", np.array([number]))[0]
    shares = masks[:, :2].mean(axis=(2, 3)) / 255
    np.testing.assert_allclose(shares, seen["boxes"][:, :2, 2] * seen["boxes"][:, :2, 3], atol=0.03)
    cache.close()
    orn = make_run_config("orn", made.cache, preset="small", aux_weight=1.0, protocol="official", schedule=BRIEF)
    run_from_boxes = fit(orn, Silent(), out=tmp_path / "orn", device="cpu").run
    i3d = make_run_config("i3d", made.cache, preset="small", protocol="official", schedule=BRIEF)
    run_without = fit(i3d, Silent(), out=tmp_path / "i3d", device="cpu").run
    shutil.rmtree(made.cache)
    onwards = PredictConfig(device="cpu", weights=weights)
    told = {"detector_weights": Path("masks")}
    for trained, given in ((run_from_boxes, told), (run_without, {})):
        stored = trained.predictions("test")
        for clip_id, logits in zip(stored.clip_ids.tolist(), stored.logits, strict=True):
            video = root / f"20bn-{V1}" / clip_id
            found = predict(trained.path, video, Silent(), onwards, given)
            assert found.notes == [] and found.clip_id == clip_id
            assert (found.num_subjects, found.num_objects) == ((1, 1) if given else (0, 0))
            np.testing.assert_allclose(found.answers[0].logits[0], logits, rtol=1e-4, atol=1e-4)
    video = root / f"20bn-{V1}" / "12"
    with pytest.raises(MissingDataError, match="detector 'blobs' has no weights that can be fetched; give its file"):
        predict(run_from_boxes.path, video, Silent(), onwards)
    with pytest.raises(InputError, match=r"--detector would be ignored: .*i3d reads no boxes"):
        predict(run_without.path, video, Silent(), onwards, {"detector": "blobs"})
    with pytest.raises(InputError, match="--boxes and a detector's options exclude each other"):
        predict(run_from_boxes.path, video, Silent(), replace(onwards, boxes=boxes), told)
    with pytest.raises(InputError, match=r"orn: trained on boxes of a detector .* does not read"):
        joint_config(run_from_boxes.path)
    of_file = predict(run_from_boxes.path, video, Silent(), replace(onwards, boxes=boxes))
    again = predict(run_from_boxes.path, video, Silent(), onwards, told)
    np.testing.assert_array_equal(of_file.answers[0].logits, again.answers[0].logits)
    other = predict(run_from_boxes.path, video, Silent(), onwards, {**told, "least_boxes": 2})
    assert other.notes == ["these boxes and those of the training differ in the detector's least_boxes"]


def test_frame_numbers_count_at_the_files_own_rate(tmp_path: Path) -> None:
    """24 frames at 24 a second; the detector looks at 6 of them, frames 0, 4, 8, …."""
    from fixtures.videos import write_video

    write_video(tmp_path / "v" / "film.mp4", 24, fps=24, size=(64, 48))
    out = tmp_path / "b.json"
    detect(options(tmp_path, out, videos=(tmp_path / "v",), detector_fps=6.0, least_boxes=1), Silent())
    facts = read_facts(out)
    assert facts is not None and facts.fps == 6.0
    assert [record["name"] for record in json.loads(out.read_text())["film"]] == [
        f"film/{number:04d}.jpg" for number in range(1, 8)
    ]  # frames 22 and 23 are nearest to number 7, at 1 s


@pytest.mark.slow
def test_a_killed_detection_goes_on_to_the_same_bytes(root: Path, tmp_path: Path) -> None:
    def arguments(out: Path) -> list[str]:
        given = ["--dataset", V1, "--data-root", root, "--detector", "blobs", "--weights", "masks", "--out", out]
        return ["detect", *map(str, given)]

    whole, stopped = tmp_path / "whole" / "boxes.json", tmp_path / "stopped" / "boxes.json"
    assert call(arguments(whole), tmp_path)[0] == 0
    code, _ = run(arguments(stopped), tmp_path, partial(dies_with_blobs, f"looked at clip {IDS[2]}"))
    part = stopped.with_suffix(".jsonl.part")
    assert code == -9 and not stopped.exists() and part.read_bytes().count(b"\n") == 4
    with part.open("ab") as file:
        file.write(b'{"clip":"12","siz')  # what a power cut leaves of a line
    code, shown, _ = call([*arguments(stopped), "--json"], tmp_path)
    assert code == 0 and json.loads(shown)["num_computed"] == len(IDS) - 3
    assert files_below(stopped.parent) == files_below(whole.parent)
    before = stopped.stat().st_mtime_ns
    assert json.loads(call([*arguments(stopped), "--json"], tmp_path)[1])["num_computed"] == 0
    assert stopped.stat().st_mtime_ns == before


def test_further_videos_are_added_and_failed_ones_are_tried_again(root: Path, tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "boxes.json"
    shutil.copytree(root / f"20bn-{V1}" / "41", videos / "41")
    (videos / "broken.mp4").write_bytes(b"no video")
    first = detect(options(root, out, videos=(videos,)), Silent())
    assert list(first.failures) == ["broken"] and "damaged or no video" in first.failures["broken"]
    assert list(json.loads(out.read_text())) == ["41"] and (first.num_tracks, first.num_subjects) == (2, 1)
    (videos / "broken.mp4").unlink()
    shutil.copytree(root / f"20bn-{V1}" / "7", videos / "broken")
    shutil.copytree(root / f"20bn-{V1}" / "100", videos / "100")
    second = detect(options(root, out, videos=(videos,)), Silent())
    assert (second.num_computed, second.failures) == (2, {})
    assert sorted(json.loads(out.read_text())) == ["100", "41", "broken"]
    fresh = detect(options(root, tmp_path / "fresh" / "boxes.json", videos=(videos,)), Silent())
    assert fresh.boxes.read_bytes() == out.read_bytes()


def test_a_file_of_boxes_is_an_annotation_file_too(root: Path, boxes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(root / f"20bn-{V1}", data / "frames")
    shutil.copy(boxes, data / "annotations.json")
    dataset = SomethingElse(data)
    assert len(dataset.listing(needs_pixels=True).clips) == len(IDS)
    stored, read = dataset.tracks("41"), read_proposals(boxes, CLIPS, 4).boxes("41")
    assert stored.categories.tolist() == read.categories.tolist() == [1, 2]
    np.testing.assert_array_equal(stored.boxes, read.boxes)


def test_only_named_classes_are_kept_and_others_may_be_subjects(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "boxes.json"
    found = detect(options(root, out, classes=("cup",), subjects=("cup",), limit=1), Silent())
    labels = [label for record in json.loads(out.read_text())["41"] for label in record["labels"]]
    assert {label["category"] for label in labels} == {"cup"} and all(label["subject"] for label in labels)
    assert found.num_subjects == found.num_tracks == 1
    none = detect(options(root, tmp_path / "none.json", classes=("cup",), limit=1), Silent())
    assert "no box is of a subject: no class is one of hand, person; name some with --subjects" in none.notes


def test_the_command_lists_failures_and_says_what_to_run_next(root: Path, tmp_path: Path) -> None:
    videos = tmp_path / "eigene Vidéos"
    shutil.copytree(root / f"20bn-{V1}" / "41", videos / "41")
    (videos / "empty.mp4").write_bytes(b"")
    code, shown, _ = call(["detect", videos, "--detector", "blobs", "--weights", "plain"], tmp_path)
    assert code == 1 and "failed: empty: " in shown and "empty file of 0 bytes" in shown
    assert "ifcar extract --dataset DATASET --boxes boxes.json" in shown
    facts = read_facts(tmp_path / "boxes.json")
    assert facts is not None and not facts.has_masks


# name: (options, kind of error, message)
BAD: dict[str, tuple[dict[str, Any], type[IfcarError], str]] = {
    "no such file": ({"videos": (Path("gone"),)}, MissingDataError, "gone: no such file or folder; expected a video"),
    "no video": ({"videos": (Path("nothing"),)}, InputError, "nothing: holds no video and no folder of frames"),
    "one name twice": ({"videos": (Path("a/x"), Path("b/x"))}, InputError, "are both called 'x'; rename one of them"),
    "class": ({"classes": ("cupp",)}, InputError, "--classes cupp: no class of blobs, did you mean 'cup'"),
    "subject": ({"subjects": ("hnd",)}, InputError, "--subjects hnd: no class of blobs"),
    "out": ({"out": Path("boxes.txt")}, InputError, r"--out boxes.txt: expected a file that ends in .json"),
    "in the way": (
        {"out": Path("other.json")},
        InputError,
        "other.json: is there, and `ifcar detect` did not",
    ),
    "other options": (
        {"score": 0.2},
        InputError,
        "was made with another score, 0.1 and not 0.2; name",
    ),
    "other part": ({"out": Path("part.json")}, InputError, "part.jsonl.part: was begun with other options"),
    "no part": ({"out": Path("torn.json")}, InputError, "torn.jsonl.part: line 1 is none of `ifcar detect`"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(
    root: Path, boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    given, kind, message = BAD[name]
    monkeypatch.chdir(tmp_path)
    for folder in ("nothing", "a/x", "b/x"):
        (tmp_path / folder).mkdir(parents=True)
        if folder != "nothing":
            draw(0, 0).save(tmp_path / folder / "0001.jpg")
    for path in boxes.parent.iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "part.jsonl.part").write_text('{"options":"0"}\n')
    (tmp_path / "torn.jsonl.part").write_text("{}\n")
    config = options(root, **{"out": Path("boxes.json"), **given})
    with pytest.raises(kind, match=message) as caught:
        detect(config, Silent())
    assert "\n" not in str(caught.value)


def test_frames_of_two_sizes_fail_the_video(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    draw(0, 0).save(folder / "0001.jpg")
    Image.new("RGB", (30, 30)).save(folder / "0002.jpg")
    found = detect(options(tmp_path, tmp_path / "boxes.json", videos=(folder,)), Silent())
    assert "expected one size throughout" in found.failures["v"]


def test_facts_of_another_file_are_refused(boxes: Path, tmp_path: Path) -> None:
    for path in boxes.parent.iterdir():
        shutil.copy(path, tmp_path)
    changed = tmp_path / "boxes.json"
    changed.write_bytes(changed.read_bytes() + b"\n")
    with pytest.raises(InputError, match=r"meta.json: is about a file of SHA-256 .*remove it to read boxes alone"):
        read_proposals(changed, CLIPS, 4)
    (tmp_path / "boxes.meta.json").unlink()
    alone = read_proposals(changed, CLIPS, 4)
    assert alone.carried == () and alone.boxes("41").categories.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": "0"}, "its run lengths give 0 pixels; expected 100 · 100"),
        ({"mask": None}, "a label has no mask; expected run lengths of 100 × 100"),
        ({"category": "cupp"}, "category 'cupp' is none of the 81 classes of the file"),
        ({"track": -1}, "track of 'person' is -1; expected a whole number from 0"),
        ({"track": 1}, "frame 1: two boxes are of one track"),
        ({"track": None}, "a label states no track, as others do"),
        ({"subject": 1}, "subject of 'person' is 1; expected true or false"),
    ],
)
def test_labels_that_cannot_be_read_are_named(
    boxes: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    content = json.loads(boxes.read_text())
    content["41"][0]["labels"][0] |= change
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    facts = read_facts(boxes)
    assert facts is not None
    told = replace(facts, boxes_sha256=hashlib.sha256(path.read_bytes()).hexdigest()).to_plain()
    (tmp_path / "boxes.meta.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match=message) as caught:
        read_proposals(path, CLIPS, 4)
    assert "boxes.json: " in str(caught.value) and "\n" not in str(caught.value)
