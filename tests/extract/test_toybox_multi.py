"""The generated clips of several actions: what they show, their files, and the way into a cache."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from ifcar.cache.open import open_cache
from ifcar.cache.schema import Split
from ifcar.errors import InputError
from ifcar.extract.datasets.toybox import ToyboxMulti
from ifcar.extract.toybox.actions import ACTIONS
from ifcar.extract.toybox.generate import generate_toybox
from ifcar.extract.toybox.looks import nouns_of
from ifcar.extract.toybox.scene import HEIGHT, WIDTH
from ifcar.extract.toybox.several import NUM_CLIPS, NUM_FRAMES, build_several, plan_several
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.progress import Silent

FEW = 9
PLANS = [plan_several(0, number) for number in range(NUM_CLIPS)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("multi")
    generate_toybox(root, size="multi", num_clips=FEW, workers=1)
    return root


def test_clips_show_two_to_four_different_actions_in_sequence_and_at_once() -> None:
    assert Counter(len(plan.acts) for plan in PLANS) == {2: 102, 3: 99, 4: 99}
    at_once = in_sequence = 0
    for plan in PLANS:
        assert len({act.class_number for act in plan.acts}) == len(plan.acts)
        nouns = [noun for act in plan.acts for noun in act.nouns]
        assert len(set(nouns)) == len(nouns)
        for a, b in combinations(plan.acts, 2):
            overlap = min(a.stop_frame, b.stop_frame) - max(a.start_frame, b.start_frame)
            at_once += overlap > 20
            in_sequence += overlap <= 8
            assert a.place % 2 != b.place % 2 or overlap <= 0, "two actions share a lane at a time"
    assert min(at_once, in_sequence) > 100


def test_verbs_meet_other_objects_in_training_and_test_and_every_class_is_in_both() -> None:
    seen = {True: Counter[int](), False: Counter[int]()}
    for plan in PLANS:
        for act in plan.acts:
            seen[plan.is_train][act.class_number] += 1
            group = "A" if (act.action.verb_group == 1) == plan.is_train else "B"
            assert set(act.nouns) <= set(nouns_of(group))  # type: ignore[arg-type]
    assert all(min(seen[part][k] for k in range(len(ACTIONS))) >= low for part, low in ((True, 20), (False, 8)))


def test_partners_occur_together_more_often_than_others() -> None:
    pairs = Counter(frozenset(pair) for plan in PLANS for pair in combinations([a.class_number for a in plan.acts], 2))
    partners = [pairs[frozenset((k, k + 9))] for k in range(9)]
    others = [count for pair, count in pairs.items() if max(pair) - min(pair) != 9]
    assert np.mean(partners) > 4 * np.mean(others)


def test_things_are_in_the_frame_in_their_actions_turn_only() -> None:
    for plan in PLANS[:30]:
        scene = build_several(plan, 0)
        assert scene.num_frames == NUM_FRAMES
        seen = []
        for track in scene.tracks:
            boxes = track.boxes(scene.camera)
            inside = (boxes[:, 2:] > 0).all(1) & (boxes[:, 0] < WIDTH) & (boxes[:, 1] < HEIGHT)
            frames = np.flatnonzero(inside)
            seen.append(frames)
            if track.slot >= 0:
                turns = [act for act in plan.acts if track.category in act.nouns]
                assert len(turns) == 1
                assert frames.min() >= turns[0].start_frame - 4 and frames.max() < turns[0].stop_frame + 4
        assert all(len(frames) > 8 for frames in seen)


@pytest.mark.slow
def test_videos_do_not_depend_on_the_number_of_processes(root: Path, tmp_path: Path) -> None:
    generate_toybox(tmp_path, size="multi", num_clips=FEW, workers=2)
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / path.relative_to(root)).read_bytes(), path


def test_reader_gives_each_clip_the_labels_that_its_actions_name(root: Path) -> None:
    dataset = ToyboxMulti(root)
    ids = [clip.clip_id for clip in dataset.listing(needs_pixels=True).clips]
    tables, notes = dataset.protocols(ids)
    assert [table.name for table in tables] == ["compositional", "shuffled"]
    assert all("classes have no training clip" in note for note in notes)  # of a few clips
    for table in tables:
        assert table.labels.kind == "multi" and len(table.labels.classes) == len(ACTIONS)
        for plan in PLANS[:FEW]:
            place = ids.index(plan.video_id)
            shown = {table.labels.classes[k] for k in np.flatnonzero(table.labels.targets[place])}
            assert shown == {act.action.name for act in plan.acts}
            if table.name == "compositional":
                assert table.split[place] == (Split.TRAIN if plan.is_train else Split.TEST)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop("actions"), "has no list 'actions'"),
        (lambda e: e["actions"][0].pop("template"), "has no text 'template'"),
        (
            lambda e: e["actions"][0].update(template="Flying"),
            "has class 'Flying', which its labels.json",
        ),
    ],
)
def test_wrong_split_entries_are_one_line(root: Path, tmp_path: Path, change: object, message: str) -> None:
    folder = tmp_path / "splits" / "p"
    folder.mkdir(parents=True)
    for name in ("labels.json", "validation.json"):
        (folder / name).write_bytes((root / "splits" / "compositional" / name).read_bytes())
    entries = json.loads((root / "splits" / "compositional" / "train.json").read_text())
    change(entries[0])  # type: ignore[operator]
    (folder / "train.json").write_text(json.dumps(entries))
    with pytest.raises(InputError, match=message):
        ToyboxMulti(tmp_path).protocols([])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("[]", "expected a JSON object"),
        ("{}", "expected a JSON object"),
        ('{"a": {}}', "class 'a' has the number {}; expected a whole number"),
        ('{"a": 0, "b": "x"}', "expected a whole number"),
        ('{"a": 0, "b": 0}', "the class numbers must be 0 … 1, each once"),
        ('{"a": 0, "a": 1}', "names the key 'a' twice"),
        ("{" + ", ".join(f'"{k}": {k}' for k in range(33_000)) + "}", "33,000 classes; up to 32,768 are read"),
    ],
)
def test_label_file_is_refused_in_one_line(tmp_path: Path, labels: str, message: str) -> None:
    folder = tmp_path / "splits" / "p"
    folder.mkdir(parents=True)
    (folder / "labels.json").write_text(labels)
    with pytest.raises(InputError, match=message) as caught:
        ToyboxMulti(tmp_path).protocols([])
    assert str(folder / "labels.json") in str(caught.value) and "\n" not in str(caught.value)


def test_missing_lists_and_classes_without_clips_are_noted(tmp_path: Path) -> None:
    folder = tmp_path / "splits" / "p"
    folder.mkdir(parents=True)
    tables, notes = ToyboxMulti(tmp_path).protocols(["1"])
    assert tables == [] and notes == [f"protocol p: left out, {folder / 'labels.json'} is missing"]
    (folder / "labels.json").write_text('{"Moving": 0, "Turning": "1"}')
    (folder / "train.json").write_text('[{"id": "1", "actions": [{"template": "Moving"}]}]')
    tables, notes = ToyboxMulti(tmp_path).protocols(["1"])
    assert tables[0].labels.targets.tolist() == [[1, 0]] and notes == [
        f"protocol p: no test clips, {folder / 'validation.json'} is missing",
        "protocol p: 1 of 2 classes has no training clip, the first: 'Turning'",
    ]


def test_extraction_keeps_many_instances_and_the_multi_label_protocols(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.zarr"
    options = ExtractConfig(
        dataset="toybox-multi", data_root=root, out=out, backbone="none", frames=32, instances=10, workers=0, limit=4
    )
    # the folder holds fewer clips than the whole set, which prepare() would render: it is read as it stands
    mark = root / "toybox.json"
    whole = json.loads(mark.read_text()) | {"num_clips": NUM_CLIPS}
    (tmp_path / "mark").write_bytes(mark.read_bytes())
    mark.write_text(json.dumps(whole))
    try:
        result = extract(options, Silent())
    finally:
        mark.write_bytes((tmp_path / "mark").read_bytes())
    reader = open_cache(result.cache)
    assert reader.protocol("compositional").labels.kind == "multi"
    assert int((reader.table("categories").max(axis=1) > 0).sum(axis=1).max()) > 4
