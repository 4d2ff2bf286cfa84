import filecmp
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from ifcar.errors import InputError
from ifcar.extract.toybox.actions import ACTIONS
from ifcar.extract.toybox.annotations import annotation_records
from ifcar.extract.toybox.effects import apply_effect
from ifcar.extract.toybox.generate import COMPLETE_FILE, STARTED_FILE, VERSION, generate_toybox
from ifcar.extract.toybox.looks import LOOKS, draw_object, nouns_of
from ifcar.extract.toybox.motion import line_motion
from ifcar.extract.toybox.render import render_frames
from ifcar.extract.toybox.scene import HEIGHT, MAX_INSTANCES, WIDTH, build_scene
from ifcar.extract.toybox.splits import NUM_CLIPS, plan_clip, split_files

FEW = 54
APPEARANCE = [action for action in ACTIONS if action.cue == "appearance"]
EFFECTS = ["tear", "fold", "spin", "paint", "hole"]

CHILD = """
import sys
from pathlib import Path
from ifcar.extract.toybox.generate import generate_toybox
generate_toybox(Path(sys.argv[1]), num_clips=54, workers=1)
"""


@pytest.fixture(scope="module")
def toybox(tmp_path_factory):
    root = tmp_path_factory.mktemp("toybox")
    generate_toybox(root, num_clips=FEW, workers=1)
    return root


@pytest.fixture(scope="module")
def small_plans():
    return [plan_clip(0, number) for number in range(NUM_CLIPS["small"])]


@pytest.fixture(scope="module")
def small_splits(small_plans):
    return split_files(small_plans, 0)


def begin(root, toybox, numbers):
    """Make a folder whose generation was stopped when it had the videos of these clips."""
    (root / "videos").mkdir()
    for number in numbers:
        name = f"{plan_clip(0, number).video_id}.webm"
        (root / "videos" / name).hardlink_to(toybox / "videos" / name)
    mark = {"size": "small", "seed": 0, "version": VERSION, "num_clips": FEW}
    (root / STARTED_FILE).write_text(json.dumps(mark))


def all_files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def assert_same_bytes(left, right):
    assert all_files(left) == all_files(right)
    _, differing, unreadable = filecmp.cmpfiles(left, right, all_files(left), shallow=False)
    assert (differing, unreadable) == ([], [])


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(toybox, tmp_path):
    begin(tmp_path, toybox, range(8, FEW - 8))
    generate_toybox(tmp_path, num_clips=FEW, workers=2)
    assert_same_bytes(toybox, tmp_path)


@pytest.mark.slow
def test_killed_generation_continues_to_the_same_bytes(toybox, tmp_path):
    begin(tmp_path, toybox, range(20, FEW))
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)])
    while child.poll() is None and len(list(tmp_path.glob("videos/*.webm"))) < FEW - 20 + 8:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("videos/*.webm")}
    assert FEW - 20 + 8 <= len(kept) < FEW
    assert not (tmp_path / COMPLETE_FILE).exists()
    generate_toybox(tmp_path, num_clips=FEW, workers=1)
    assert_same_bytes(toybox, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_complete_set_is_left_untouched_and_reports_no_progress(toybox):
    before = {name: (toybox / name).stat().st_mtime_ns for name in all_files(toybox)}
    generate_toybox(toybox, num_clips=FEW, progress=lambda done, total: pytest.fail("rendered again"))
    assert {name: (toybox / name).stat().st_mtime_ns for name in all_files(toybox)} == before


def test_progress_counts_every_video_even_those_already_rendered(toybox, tmp_path):
    begin(tmp_path, toybox, range(FEW))
    calls = []
    generate_toybox(tmp_path, num_clips=FEW, workers=1, progress=lambda *counts: calls.append(counts))
    assert calls == [(done, FEW) for done in range(1, FEW + 1)]
    assert_same_bytes(toybox, tmp_path)


def test_other_seed_in_the_same_folder_is_refused_with_one_line(toybox):
    with pytest.raises(InputError, match="seed 0 instead of 7") as caught:
        generate_toybox(toybox, num_clips=FEW, seed=7)
    assert "\n" not in str(caught.value)
    assert str(toybox) in str(caught.value)


def test_other_size_in_the_same_folder_is_refused(toybox):
    with pytest.raises(InputError, match="size 'small' instead of 'standard'"):
        generate_toybox(toybox, size="standard")


def test_stopped_set_of_another_seed_is_refused(tmp_path):
    mark = {"size": "small", "seed": 3, "version": VERSION, "num_clips": NUM_CLIPS["small"]}
    (tmp_path / STARTED_FILE).write_text(json.dumps(mark))
    with pytest.raises(InputError, match="seed 3 instead of 0"):
        generate_toybox(tmp_path)


def test_folder_with_foreign_videos_is_refused(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "1.webm").write_bytes(b"")
    with pytest.raises(InputError, match="no toybox run wrote"):
        generate_toybox(tmp_path)


@pytest.mark.parametrize(
    "arguments", [{"size": "huge"}, {"seed": -1}, {"workers": 0}, {"num_clips": 5}, {"num_clips": 10**6}]
)
def test_argument_out_of_range_is_refused_before_anything_is_written(tmp_path, arguments):
    with pytest.raises(InputError, match="found"):
        generate_toybox(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_every_annotated_name_is_a_frame_of_its_video_and_boxes_have_positive_size(toybox):
    annotations = read(toybox / "annotations.json")
    sizes = read(toybox / "videoid2size.json")
    assert len(annotations) == FEW
    shorter = 0
    for video_id, records in annotations.items():
        with av.open(str(toybox / "videos" / f"{video_id}.webm")) as container:
            stream = container.streams.video[0]
            assert [stream.width, stream.height] == sizes[video_id] == [WIDTH, HEIGHT]
            assert stream.average_rate == 12
            num_frames = sum(1 for _ in container.decode(video=0))
        assert 24 <= num_frames <= 48
        assert [r["name"] for r in records] == [f"{video_id}/{k + 1:04d}.jpg" for k in range(len(records))]
        assert num_frames - 3 <= len(records) <= num_frames
        shorter += len(records) < num_frames
        for record in records:
            assert record["nr_instances"] == len(record["labels"]) <= MAX_INSTANCES
            for label in record["labels"]:
                box = label["box2d"]
                assert box["x2"] > box["x1"]
                assert box["y2"] > box["y1"]
    assert shorter > 0


def test_records_have_the_keys_and_slot_names_of_something_else(toybox):
    for records in read(toybox / "annotations.json").values():
        for record in records:
            assert set(record) == {"name", "labels", "gt_placeholders", "nr_instances"}
            for label in record["labels"]:
                assert set(label) == {"box2d", "category", "standard_category", "gt_annotation"}
                is_hand = label["category"] == "hand"
                slot = "hand" if is_hand else str(int(label["standard_category"]))
                assert label["gt_annotation"] == f"object {slot}"
                assert label["standard_category"] == ("hand" if is_hand else f"{int(slot):04d}")


def test_some_boxes_are_missing_and_some_reach_past_the_border(toybox):
    labels = [
        label
        for records in read(toybox / "annotations.json").values()
        for record in records
        for label in record["labels"]
    ]
    assert any(label["box2d"]["y2"] > HEIGHT for label in labels)
    given = []
    for number in range(10):
        scene = build_scene(APPEARANCE[0], nouns_of("A")[:1], nouns_of("A")[5], 0, number)
        records = annotation_records(scene, "1", 0, number)
        given += [any(x["standard_category"] == "0000" for x in record["labels"]) for record in records]
    assert 0.95 < np.mean(given) < 0.995


def test_there_are_eighteen_templates_and_twenty_four_looks_in_two_groups():
    assert len({action.template for action in ACTIONS}) == len(ACTIONS) == 18
    assert Counter(action.cue for action in ACTIONS) == {"position": 6, "appearance": 5, "relation": 7}
    assert Counter(action.verb_group for action in ACTIONS) == {1: 9, 2: 9}
    assert len({look.noun for look in LOOKS}) == 24
    assert Counter(look.group for look in LOOKS) == {"A": 12, "B": 12}
    for trait in ("shape", "colour"):
        per_group = [{getattr(k, trait) for k in LOOKS if k.group == group} for group in "AB"]
        assert per_group[0] == per_group[1]
        assert len(per_group[0]) == 12


def test_compositional_train_and_test_share_verbs_and_objects_but_no_pair(small_splits):
    pairs, verbs, objects = {}, {}, {}
    for part in ("train", "validation"):
        entries = small_splits[f"compositional/{part}.json"]
        pairs[part] = {(e["template"], noun) for e in entries for noun in e["placeholders"]}
        verbs[part] = {verb for verb, _ in pairs[part]}
        objects[part] = {noun for _, noun in pairs[part]}
    assert not pairs["train"] & pairs["validation"]
    assert verbs["train"] == verbs["validation"] == {action.template for action in ACTIONS}
    assert objects["train"] == objects["validation"] == {look.noun for look in LOOKS}


def test_distractors_come_from_the_object_group_of_their_clip(small_plans):
    for plan in small_plans:
        groups = [group for group in ("A", "B") if plan.distractor in nouns_of(group)]
        assert set(plan.nouns) <= set(nouns_of(groups[0]))
        assert plan.distractor not in plan.nouns


def test_small_has_balanced_classes_in_both_single_protocols(small_splits):
    for protocol in ("compositional", "shuffled"):
        for part, count in (("train", 18), ("validation", 9)):
            entries = small_splits[f"{protocol}/{part}.json"]
            assert Counter(e["template"] for e in entries) == {a.template: count for a in ACTIONS}


def test_shuffled_holds_the_clips_of_compositional_in_other_parts(small_splits):
    ids = {name: {e["id"] for e in c} for name, c in small_splits.items() if "train" in name or "valid" in name}
    both = [ids[f"{p}/train.json"] | ids[f"{p}/validation.json"] for p in ("compositional", "shuffled")]
    assert both[0] == both[1]
    assert ids["compositional/train.json"] != ids["shuffled/train.json"]
    assert not ids["shuffled/train.json"] & ids["shuffled/validation.json"]


def test_few_shot_classes_are_disjoint_and_ten_shots_contain_the_five(small_splits):
    few = {name.split("/")[1]: c for name, c in small_splits.items() if name.startswith("fewshot")}
    base, novel = few["base_labels.json"], few["finetune_labels.json"]
    assert not set(base) & set(novel)
    assert sorted(base.values()) == sorted(novel.values()) == list(range(9))
    ids = {name: {e["id"] for e in c} for name, c in few.items() if isinstance(c, list)}
    five, ten = ids["finetune_5shot_training.json"], ids["finetune_10shot_train.json"]
    assert five < ten
    draws = [ids[f"finetune_5shot_training{suffix}.json"] for suffix in ("", "_draw2", "_draw3")]
    assert len(set.union(*draws)) == 3 * len(five) == 3 * 5 * 9
    for suffix in ("", "_draw2", "_draw3"):
        assert not ids[f"finetune_10shot_train{suffix}.json"] & ids["finetune_validation.json"]
        assert ids[f"finetune_5shot_training{suffix}.json"] < ids[f"finetune_10shot_train{suffix}.json"]
    for name, count in (("finetune_5shot_training", 5), ("finetune_10shot_train", 10)):
        assert set(Counter(e["template"] for e in few[f"{name}.json"]).values()) == {count}
    assert not ids["base_training_set.json"] & ids["base_validation_set.json"]


def test_entries_fill_the_template_and_label_keys_have_no_brackets(small_splits):
    labels = small_splits["compositional/labels.json"]
    for entry in small_splits["compositional/train.json"]:
        assert entry["template"].replace("[", "").replace("]", "") in labels
        assert "[" not in entry["label"]
        assert all(noun in entry["label"] for noun in entry["placeholders"])


def test_ids_are_unique_and_do_not_follow_the_class(small_plans):
    for seed in (0, 5):
        plans = [plan_clip(seed, number) for number in range(NUM_CLIPS["standard"])]
        assert len({plan.video_id for plan in plans}) == len(plans)
    order = sorted(small_plans, key=lambda plan: int(plan.video_id))
    steps = Counter((b.class_number - a.class_number) % 18 for a, b in pairwise(order))
    assert max(steps.values()) < len(order) / 2


@pytest.mark.parametrize("number", [3, 20])
def test_appearance_only_classes_share_one_box_process(number):
    nouns = nouns_of("A")
    scenes = [build_scene(action, nouns[:1], nouns[5], 0, number) for action in APPEARANCE]
    expected = annotation_records(scenes[0], "1", 0, number)
    assert all(annotation_records(scene, "1", 0, number) == expected for scene in scenes[1:])
    assert {scene.tracks[0].effect for scene in scenes} == set(EFFECTS)


def test_behind_and_in_front_have_equal_boxes_and_other_pixels():
    by_name = {action.name: action for action in ACTIONS}
    nouns = nouns_of("B")
    scenes = [
        build_scene(by_name[f"Putting something {where} something"], nouns[:2], nouns[5], 0, 11)
        for where in ("behind", "in front of")
    ]
    boxes = [[track.boxes(scene.camera) for track in scene.tracks] for scene in scenes]
    np.testing.assert_array_equal(boxes[0], boxes[1])
    last = [list(render_frames(scene, 0, 11))[-1].astype(int) for scene in scenes]
    assert (np.abs(last[0] - last[1]).max(axis=2) > 30).sum() > 100


@pytest.mark.parametrize("axis", ["x", "y"])
def test_opposite_pushes_are_one_line_walked_both_ways(axis):
    u = np.linspace(0, 1, 30)
    there, back = (line_motion(axis, forward)(np.random.default_rng(4), u, [(60.0, 60.0)]) for forward in (True, False))
    both = there.objects[0].centre + back.objects[0].centre
    np.testing.assert_allclose(both, np.tile(both[0], (30, 1)))
    np.testing.assert_array_equal(there.hands[0].out, back.hands[0].out)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.noun.replace(" ", "-"))
@pytest.mark.parametrize("effect", EFFECTS)
def test_effects_change_much_of_the_picture_and_stay_near_the_box(effect, look):
    sprite = draw_object(look, 4.0)
    progress = np.linspace(0.0, 1.0, 12)
    np.testing.assert_array_equal(apply_effect(sprite, effect, progress, 0), sprite.image)
    for frame in range(12):
        image = apply_effect(sprite, effect, progress, frame)
        assert image.shape == sprite.image.shape
    low, high = sprite.hull.min(axis=0), sprite.hull.max(axis=0)
    margin = 0.12 * (high - low).max()
    ys, xs = np.nonzero(image[..., 3] > 127)
    inside = np.all((np.stack([xs, ys], 1) > low - margin) & (np.stack([xs, ys], 1) < high + margin), axis=1)
    if effect != "spin":
        assert inside.mean() > 0.97
    changed = np.abs(image.astype(int) - sprite.image.astype(int)).max(axis=2) > 40
    assert changed.sum() > 0.3 * (sprite.image[..., 3] > 127).sum()


def test_boxes_are_tight_around_the_drawn_pixels():
    plan = plan_clip(0, 0)
    scene = build_scene(plan.action, plan.nouns, plan.distractor, 0, 0)
    middle = scene.num_frames // 2
    for track in scene.tracks:
        centred = replace(track, centre=np.full_like(track.centre, 120.3))
        shift = np.array([3.0, -2.0])
        alpha = cv2.warpAffine(track.sprite.image, centred.placement(middle, shift), (WIDTH, HEIGHT))[..., 3]
        ys, xs = np.nonzero(alpha > 127)
        drawn = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        boxes = centred.boxes(np.tile(shift, (scene.num_frames, 1)))
        np.testing.assert_allclose(boxes[middle], drawn, atol=1.0)


def test_root_may_be_given_relative(tmp_path, monkeypatch, toybox):
    monkeypatch.chdir(toybox.parent)
    generate_toybox(Path(toybox.name), num_clips=FEW)
