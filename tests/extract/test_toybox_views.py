"""The generated recordings by several cameras: what they show and hear, what they hide, and the way into caches."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ifcar.cache.schema import Split
from ifcar.extract.audio import SAMPLE_RATE, Sound
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.datasets.toybox_views import ToyboxViews
from ifcar.extract.log_mel import PATCH_SAMPLES, log_mel
from ifcar.extract.toybox.activities import ACTIVITIES, ATOMICS, NUM_RECORDINGS, RecordingPlan, plan_recording
from ifcar.extract.toybox.cameras import CAMERAS, FILM_HEIGHT, FILM_WIDTH, NUM_FRAMES, acting_boxes, films_of
from ifcar.extract.toybox.generate import COMPLETE_FILE, STARTED_FILE, generate_toybox
from ifcar.extract.toybox.kinds import KINDS
from ifcar.extract.toybox.looks import nouns_of
from ifcar.extract.toybox.sounds import recording_sound
from ifcar.extract.video_file import VideoFile

FEW = 6
PLANS = [plan_recording(0, number) for number in range(NUM_RECORDINGS)]
WINDOWS = 4


def test_parts_have_every_activity_as_often_and_share_no_object() -> None:
    for is_train, count, group in ((True, 160, "A"), (False, 80, "B")):
        own = [plan for plan in PLANS if plan.is_train is is_train]
        assert Counter(plan.activity for plan in own) == dict.fromkeys(ACTIVITIES, count // len(ACTIVITIES))
        for plan in own:
            shown = [noun for act in plan.acts for noun in act.nouns] + list(plan.bystanders)
            assert len(set(shown)) == len(shown) and set(shown) <= set(nouns_of(group))  # type: ignore[arg-type]


def test_acts_fill_a_recording_in_whole_seconds_and_no_atomic_action_decides() -> None:
    for plan in PLANS:
        assert [act.start_frame for act in plan.acts[1:]] == [act.stop_frame for act in plan.acts[:-1]]
        assert (plan.acts[0].start_frame, plan.acts[-1].stop_frame) == (0, NUM_FRAMES)
        assert all(own["frame_start"] % 30 == 1 and own["frame_end"] % 30 == 0 for own in plan.records())
    found = Counter(name for names in ACTIVITIES.values() for name in names)
    assert set(found) == {atomic.name for atomic in ATOMICS} and min(found.values()) > 1
    assert sum(atomic.noise is not None for atomic in ATOMICS) == 6


def as_activity(name: str, plan: RecordingPlan) -> RecordingPlan:
    """Return the plan with the acts of another activity of as many, in its own times, places and objects."""
    looks = [next(atomic.look for atomic in ATOMICS if atomic.name == own) for own in ACTIVITIES[name]]
    assert len(looks) == len(plan.acts)
    acts = tuple(replace(act, class_number=look) for act, look in zip(plan.acts, looks, strict=True))
    return replace(plan, activity=name, acts=acts)


def first(activity: str) -> RecordingPlan:
    return next(plan for plan in PLANS if plan.activity == activity)


@pytest.mark.parametrize(("one", "other"), [("mix_batter", "mill_grain"), ("coat_a_box", "sand_a_box")])
@pytest.mark.slow
def test_two_pairs_of_activities_differ_in_sound_alone(one: str, other: str) -> None:
    plan = first(one)
    shown, same = films_of(plan, 0), films_of(as_activity(other, plan), 0)
    assert all(np.array_equal(shown[name], same[name]) for name in CAMERAS)
    assert not np.array_equal(recording_sound(plan, 0), recording_sound(as_activity(other, plan), 0))


def test_what_is_silent_or_sounds_alike_is_the_same_to_the_ear() -> None:
    gift = first("wrap_a_gift")
    assert np.array_equal(recording_sound(gift, 0), recording_sound(as_activity("open_a_gift", gift), 0))
    hum = recording_sound(gift, 0, acts=False)
    heard = recording_sound(gift, 0)
    for act, atomic in zip(gift.acts, gift.atomics, strict=True):
        span = slice(act.start_frame * SAMPLE_RATE // 12, act.stop_frame * SAMPLE_RATE // 12)
        assert np.array_equal(heard[span], hum[span]) == (atomic.noise is None)


@pytest.mark.slow
def test_in_private_views_only_the_ego_camera_says_what_happens() -> None:
    plan = first("open_a_gift")
    other = as_activity("wrap_a_gift", plan)
    private, same, shown = films_of(plan, 0, private=True), films_of(other, 0, private=True), films_of(plan, 0)
    assert np.array_equal(private["ego"], shown["ego"]) and not np.array_equal(private["ego"], same["ego"])
    for name in CAMERAS[1:]:
        assert np.array_equal(private[name], same[name]) and not np.array_equal(private[name], shown[name])
    assert np.array_equal(recording_sound(plan, 0, acts=False), recording_sound(other, 0, acts=False))


def patches(plan: RecordingPlan, seed: int) -> list[np.ndarray]:
    """Return the log-mel of each second window of two, a mean over its time."""
    sound = np.pad(recording_sound(plan, seed), (0, PATCH_SAMPLES))
    places = range(0, WINDOWS * 2 * SAMPLE_RATE, 2 * SAMPLE_RATE)
    return [
        np.concatenate([log_mel(sound[p + k : p + k + PATCH_SAMPLES]).mean(0) for k in (0, SAMPLE_RATE)])
        for p in places
    ]


def shown_in(plan: RecordingPlan, window: int) -> set[str]:
    span = range(window * 60, window * 60 + 60)
    return {own["class"] for own in plan.records() if own["frame_start"] - 1 < span.stop and own["frame_end"] > span[0]}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.slow
def test_sound_tells_what_sounds_and_not_what_is_silent(seed: int) -> None:
    plans = [plan_recording(seed, number) for number in range(NUM_RECORDINGS // 2)]
    rows = [(plan.is_train, shown_in(plan, k), x) for plan in plans for k, x in enumerate(patches(plan, seed))]
    noises = {atomic.name: atomic.noise for atomic in ATOMICS}

    def auc(chosen: list[tuple[bool, set[str], np.ndarray]], names: set[str]) -> float:
        x, y = np.stack([row[2] for row in chosen]), np.array([bool(names & row[1]) for row in chosen])
        train = np.array([row[0] for row in chosen])
        mean, spread = x[train].mean(0), x[train].std(0) + 1e-6
        model = LogisticRegression(C=0.1, max_iter=200).fit((x[train] - mean) / spread, y[train])
        return float(roc_auc_score(y[~train], model.decision_function((x[~train] - mean) / spread)))

    for name, noise in noises.items():
        if noise is not None:  # what sounds alike is one
            assert auc(rows, {own for own, other in noises.items() if other == noise}) > 0.8, name
    silent = [row for row in rows if all(noises[name] is None for name in row[1])]
    for name in ("poke", "raise", "put_in_front"):
        assert 0.3 < auc(silent, {name}) < 0.7, name


@pytest.mark.slow
def test_acting_boxes_hold_what_moves() -> None:
    plan = PLANS[9]
    films = films_of(plan, 0)
    for name in ("ego", "third-1"):
        boxes = acting_boxes(name, plan, 0)
        assert boxes.shape == (NUM_FRAMES, 4) and (boxes >= 0).all() and (boxes <= [FILM_WIDTH, FILM_HEIGHT] * 2).all()
        assert len(films[name]) == NUM_FRAMES and films[name][0].shape == (FILM_HEIGHT, FILM_WIDTH, 3)
        if name == "third-1":  # it stands nearly still, so that what differs between pictures is what acts
            inside = outside = 0.0
            for frame in range(6, 90, 6):
                change = np.abs(films[name][frame].astype(float) - films[name][frame + 1]).sum(-1)
                x1, y1, x2, y2 = boxes[frame].astype(int)
                held = change[y1 : y2 + 1, x1 : x2 + 1]
                inside, outside = inside + held.mean() if held.size else inside, outside + change.mean()
            assert inside > 1.5 * outside


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("views")
    generate_toybox(root, size="views", seed=1, num_clips=FEW, workers=1)
    return root


@pytest.mark.slow
def test_files_are_home_action_genomes_the_same_each_time(root: Path, tmp_path: Path) -> None:
    kind = KINDS["views"]
    for plan in (kind.plan(1, number) for number in range(1, FEW - 1)):  # two that are rendered again show it
        for name in kind.videos(plan, 1):
            kept = tmp_path / kind.folder / name
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.hardlink_to(root / kind.folder / name)
    mark = json.loads((root / COMPLETE_FILE).read_text())
    (tmp_path / STARTED_FILE).write_text(json.dumps({key: mark[key] for key in mark if key != "counts"}))
    generate_toybox(tmp_path, size="views", seed=1, num_clips=FEW, workers=1)
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / path.relative_to(root)).read_bytes(), path
    dataset = ToyboxViews(root)
    listing = dataset.listing(needs_pixels=True)
    assert not listing.problems and not listing.notes and len(listing.clips) == FEW * WINDOWS * len(CAMERAS)
    ids = [clip.clip_id for clip in listing.clips]
    (table,), notes = dataset.protocols(ids)
    assert not notes and [space.name for space in table.spaces] == ["activity", "atomic"]
    for number, clip in enumerate(listing.clips):
        plan = plan_recording(1, int(clip.segment[1:5]) - 1)
        assert table.split[number] == (Split.TRAIN if plan.is_train else Split.TEST)
        assert clip.span_sec is not None and clip.span_sec[1] - clip.span_sec[0] == 2
        activity, atomic = table.spaces
        assert activity.classes[activity.targets[number]] == plan.activity
        shown = {atomic.classes[k] for k in np.flatnonzero(atomic.targets[number])}
        assert shown == shown_in(plan, int(clip.span_sec[0]) // 2)


@pytest.mark.slow
def test_films_hold_the_pictures_and_the_ego_one_the_sound(root: Path) -> None:
    films = sorted((root / "action_split_data/V1.0/p0001").iterdir())
    plan = plan_recording(1, 0)
    for path, pictures in zip(films, films_of(plan, 1).values(), strict=True):
        with VideoFile(path) as video:
            ((_, found),) = video.pictures([40])
        wrong = np.abs(np.asarray(found, float) - pictures[40][..., ::-1]).mean()
        assert wrong < 8, path
    with Sound(films[0]) as sound:
        heard = sound.read(0, 8 * SAMPLE_RATE)
    assert np.abs(heard - recording_sound(plan, 1)).max() < 1e-3


def test_controls_are_registered_beside_it() -> None:
    seeds = {name: (DATASETS.get(name).size, DATASETS.get(name).seed) for name in DATASETS.names() if "views" in name}  # type: ignore[attr-defined]
    assert seeds == {
        "toybox-views": ("views", 1),
        "toybox-views-design": ("views", 0),
        "toybox-views-private": ("private views", 1),
    }
