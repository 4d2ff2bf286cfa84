"""VLOG's files, read end to end: masks by time, unknown labels, splits, the official measure, bad input, real clips."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.vlog import (
    CHAIR,
    CLASSES,
    CLIPS,
    CUP,
    LABELS,
    NUM_MASKS,
    PERSON,
    SPLITS,
    WITHOUT_MASKS,
    clip_masks,
    detection,
    write_vlog,
)
from fixtures.weights import random_weights
from sklearn.metrics import average_precision_score

from ifcar.cache.open import open_cache
from ifcar.cache.schema import Category, Split
from ifcar.errors import IfcarError, InputError, MissingDataError
from ifcar.extract.coco import CLASSES as COCO
from ifcar.extract.datasets.vlog import Vlog
from ifcar.extract.geometry import FULL_FRAME, pictures_to_crop
from ifcar.pipelines.evaluate import evaluate
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.fit import fit
from ifcar.pipelines.labels.kinds import kind_of
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vlog(tmp_path_factory.mktemp("vlog") / "data")


@pytest.fixture(scope="module")
def cache(root: Path) -> Path:
    out = root.parent / "vlog.zarr"
    config = ExtractConfig(
        dataset="vlog",
        data_root=root,
        out=out,
        backbone="mobilenet_v2",
        weights=random_weights(out, "mobilenet_v2"),
        frames=8,
        crop=32,
        instances=3,
        workers=0,
    )
    result = extract(config, Silent())
    assert (result.num_clips, result.num_failed) == (len(CLIPS), 0)
    assert result.notes == [
        f"1 clip has no masks, and so no boxes, the first: {WITHOUT_MASKS}; put masks there as "
        f"{root}/masks/preds_100x100_50/PATH/clip.pkl",
        "slots hold each frame's detections, persons first, then by score; what finds no slot is left out",
    ]
    return out


@pytest.mark.slow
def test_slots_hold_the_detections_of_the_nearest_thirtieth_of_a_second(cache: Path) -> None:
    """Literally: frame f of 29 a second shows mask round(30 f / 29); persons first, then by score."""
    reader = open_cache(cache)
    assert reader.spec.array("object_classes").classes == COCO and COCO[CUP] == "cup"
    shown = reader.table("frame_indices")[0].tolist()
    assert len(shown) == 8 and any(round(f * 30 / 29) != f for f in shown)
    for row, clip in enumerate(CLIPS):
        boxes, categories = reader.table("boxes")[row], reader.table("categories")[row]
        classes, masks = reader.table("object_classes")[row], reader.read_rows("masks", np.array([row]))[0]
        for t, frame in enumerate(shown):
            mask_frame = round(frame * 30 / 29)
            kinds = [PERSON, CHAIR, CUP] if mask_frame % 3 == 0 else [CHAIR, CUP]
            if mask_frame % 10 == 0 or clip == WITHOUT_MASKS:
                kinds = []
            assert classes[t].tolist() == kinds + [-1] * (3 - len(kinds))
            expected = [Category.SUBJECT if kind == PERSON else Category.OBJECT for kind in kinds]
            assert categories[t].tolist() == expected + [0] * (3 - len(kinds))
            for slot, kind in enumerate(kinds):
                box, mask = detection(kind, mask_frame)
                x1, y1, x2, y2 = box[:4] / 100
                np.testing.assert_allclose(boxes[t, slot], [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], atol=1e-6)
                seen = pictures_to_crop(mask.astype(np.uint8) * np.uint8(255), FULL_FRAME, False)
                np.testing.assert_array_equal(masks[t, slot], seen)
    reader.close()


def test_protocols_and_labels_are_the_official_ones_with_inconclusive_as_unknown(cache: Path) -> None:
    reader = open_cache(cache)
    assert reader.protocol_names() == ["official", "orn-val"]
    rules: dict[str, Callable[[int], Split]] = {
        "official": lambda own: Split.TEST if own == 0 else Split.TRAIN,
        "orn-val": lambda own: {0: Split.NONE, 3: Split.TEST}.get(own, Split.TRAIN),
    }
    for name, rule in rules.items():
        table = reader.protocol(name)
        assert table.split.tolist() == [rule(own) for own in SPLITS]
        assert table.labels.classes == CLASSES and table.labels.unlabelled == "negative"
        assert table.labels.targets.tolist() == [[{1: 1, 0: -1, -1: 0}[v] for v in row] for row in LABELS.tolist()]
        assert table.group_kind == "uploader"
        assert [table.group_names[g] for g in table.groups] == [str(place // 2) for place in range(len(CLIPS))]
    reader.close()


def test_map_is_the_official_one(cache: Path) -> None:
    """Per class without the inconclusive clips, scikit-learn's average precision of contact; their mean."""
    reader = open_cache(cache)
    space = reader.protocol("official").labels
    reader.close()
    scores = np.random.default_rng(3).normal(size=LABELS.shape).astype(np.float32)
    each = []
    for own, labels in zip(scores.T, LABELS.T, strict=True):
        known = labels != 0
        each.append(average_precision_score(labels[known] > 0, own[known]))
    assert kind_of(space).measures(scores, space.targets)["map"] == pytest.approx(np.nanmean(each), abs=1e-12)


@pytest.mark.slow
def test_masks_alone_need_no_videos(tmp_path: Path) -> None:
    out = tmp_path / "c.zarr"
    config = ExtractConfig(
        dataset="vlog", data_root=write_vlog(tmp_path / "d", pixels=False), out=out, backbone="none", workers=0
    )
    result = extract(config, Silent())
    assert result.num_clips == len(CLIPS) - 1
    assert any("1 of 8 clips is left out, without masks/" in note for note in result.notes)
    reader = open_cache(out)
    frame = int(reader.table("frame_indices")[0, 0])
    assert reader.table("boxes")[0, 0, -2 if frame % 3 == 0 else 0].any()
    reader.close()


def test_missing_files_are_named_with_what_to_download_and_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no meta/manifest\.txt; download VLOG's annotations"):
        Vlog(tmp_path).prepare()
    root = write_vlog(tmp_path / "d", pixels=False)
    with pytest.raises(MissingDataError, match=r"videos: none of 8 videos; download VLOG's clips"):
        Vlog(root).listing(needs_pixels=True)
    (root / "meta" / "uploaderId.txt").unlink()
    (root / "meta" / "hand_object" / "hand_object.npy").unlink()
    dataset = Vlog(root)
    dataset.prepare()
    tables, notes = dataset.protocols([clip.clip_id for clip in dataset.listing(needs_pixels=False).clips])
    assert (tables[0].labels.targets == -1).all() and tables[0].group_kind == ""
    assert "clips have no labels" in notes[0] and "hand_object.npy is missing; download" in notes[0]
    assert "uploaderId.txt is missing" in notes[1]


def _with(change: Callable[[dict[str, Any]], object]) -> bytes:
    content = clip_masks()
    change(content)
    return pickle.dumps(content)


WHOLE = pickle.dumps(clip_masks())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WHOLE[: len(WHOLE) // 2], "clip.pkl: .*"),
        (pickle.dumps([1]), "expected a mapping with lists segms and boxes"),
        (_with(lambda c: c["boxes"].pop()), "expected a mapping with lists segms and boxes"),
        (
            _with(lambda c: c["boxes"][3].append([])),
            "frame 3: boxes of 82 and masks of 81 classes; expected lists of 81",
        ),
        (_with(lambda c: c["boxes"][3][CUP].pop()), f"frame 3, class {CUP}: 0 boxes and 1 masks"),
        (
            _with(lambda c: (c["boxes"][1][0].append([0, 0, 9, 9, 1.0]), c["segms"][1][0].append(None))),
            "frame 1, class 0: has boxes; expected none of class 0",
        ),
        (_with(lambda c: c["boxes"][1][CUP].__setitem__(0, [0, 0, 9, float("nan"), 1])), "finite x1, y1, x2, y2"),
        (
            _with(lambda c: c["segms"][1][CUP][0].update(size=[100, 120])),
            rf"frame 1, class {CUP}: a mask of size \[100, 120\]; expected run lengths of \[100, 100\]",
        ),
        (
            _with(lambda c: c["segms"][1][CUP][0].update(counts=b"01")),
            rf"frame 1, class {CUP}: its run lengths give 1 pixels; expected 100 · 100",
        ),
    ],
)
def test_damaged_masks_fail_their_clip_with_frame_and_class(content: bytes, message: str, tmp_path: Path) -> None:
    root = write_vlog(tmp_path, pixels=False)
    dataset = Vlog(root)
    dataset.listing(needs_pixels=False)
    path = root / "masks" / "preds_100x100_50" / CLIPS[0] / "clip.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        dataset.tracks(CLIPS[0])
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert len(dataset.tracks(CLIPS[1]).frames) == NUM_MASKS


def _array(shape: tuple[int, ...], value: object = 1) -> Callable[[Path], object]:
    return lambda path: np.save(path, np.full(shape, value))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("manifest.txt", "A/b\nA/b/\n", "line 2: 'A/b/' is listed twice"),
        ("manifest.txt", "../x\n", "line 1: '../x' is no path of a clip"),
        ("splitId.txt", "0\n1\n", r"splitId\.txt: 2 lines; meta/manifest\.txt has 8"),
        ("splitId.txt", "0\n" * 7 + "01\n", "line 8: split '01'; expected one of 0, 1, 2, 3"),
        ("uploaderId.txt", "1\n" * 9, r"uploaderId\.txt: 9 lines; meta/manifest\.txt has 8"),
        (
            "hand_object/hand_object.npy",
            _array((9, 3)),
            r"\(9, 3\); expected numbers \(8, 3\), a row for each line of meta/man",
        ),
        ("hand_object/hand_object.npy", _array((8, 3), 2), "row 0, column 0 is 2; expected 1, 0 or -1"),
        ("hand_object/hand_object.npy", _array((8, 3), "x"), r"<U1 \(8, 3\); expected numbers"),
        ("hand_object/hand_object.npy", "no array", "download it again"),
        ("hand_object/hand_object_labels.txt", "bag\nbag\n", "names the class 'bag' twice"),
    ],
)
def test_broken_list_is_refused_with_its_place(
    name: str, write: str | Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    path = write_vlog(tmp_path, pixels=False) / "meta" / name
    if isinstance(write, str):
        path.write_text(write)
    else:
        write(path)
    dataset = Vlog(tmp_path)
    with pytest.raises(IfcarError, match=message) as caught:
        dataset.protocols([clip.clip_id for clip in dataset.listing(needs_pixels=False).clips])
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif("IFCAR_SHARED" not in os.environ, reason="IFCAR_SHARED is not set: no real clips")
def test_real_clips_go_from_masks_to_a_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published files but for the labels, which are drawn: one clip for training and one for test."""
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "runs"))
    shared, root = Path(os.environ["IFCAR_SHARED"]) / "data" / "vlog", tmp_path / "vlog"
    (root / "meta" / "hand_object").mkdir(parents=True)
    for name in ("videos", "masks", "meta/manifest.txt", "meta/splitId.txt", "meta/hand_object/hand_object_labels.txt"):
        (root / name).symlink_to(shared / name)
    labels = np.random.default_rng(0).integers(-1, 2, (113_839, 30)).astype(np.int8)
    np.save(root / "meta" / "hand_object" / "hand_object.npy", labels)
    out = tmp_path / "c.zarr"
    config = ExtractConfig(
        dataset="vlog",
        data_root=root,
        out=out,
        backbone="mobilenet_v2",
        weights=random_weights(out, "mobilenet_v2"),
        crop=64,
        instances=10,
        workers=0,
    )
    result = extract(config, Silent())
    assert (result.num_clips, result.num_failed) == (2, 0)
    reader = open_cache(out)
    assert reader.clip_ids == ["o/p/Y/v_7Tsrimk7opY/052", "a/q/g/v_4jqvo3TQaqg/016"]
    assert reader.protocol("official").split.tolist() == [Split.TRAIN, Split.TEST]
    masks, present = reader.read_rows("masks", np.arange(2)), reader.table("categories") > 0
    assert (masks.any(axis=(3, 4)) == present).all() and present.any(axis=(1, 2)).all()
    reader.close()
    brief = ScheduleConfig(kind="stretched", epochs=4, batch_size=1, held_out=0.0)
    config_of_run = make_run_config("stin", out, protocol="official", preset="small", schedule=brief)
    run = fit(config_of_run, Silent(), out=tmp_path / "run", device="cpu").run
    scored = evaluate(run.path)
    assert scored.agrees and scored.metrics.n == 1
    # of one clip every class with a contact is found first, and the others have no clip
    assert scored.metrics.map == 1
