"""Pairs of clips that differ in nothing but which instance is where: what averaging over a frame's instances loses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.open import open_cache
from ifcar.cache.schema import Split
from ifcar.extract.datasets.toybox import ToyboxRelational
from ifcar.extract.toybox.generate import generate_toybox
from ifcar.extract.toybox.relational import (
    HOLD,
    NUM_CLIPS,
    NUM_FRAMES,
    PAIRS,
    SWAP,
    TOUCH,
    RelationalPlan,
    plan_relational,
    relational_records,
)
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import InstanceBatch
from ifcar.pipelines.configs import from_plain, set_option, to_plain
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.progress import Silent

FEW = 6
SPEC = CacheSpec.standard(num_frames=8, num_steps=8, num_instances=4, channels=6, pooled_size=2)
PLANS = [plan_relational(0, number) for number in range(NUM_CLIPS)]
TWINS = list(zip(PLANS[::2], PLANS[1::2], strict=True))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("relational")
    generate_toybox(root / "d", size="relational", num_clips=FEW, workers=1)
    config = ExtractConfig(
        dataset="toybox-relational",
        data_root=root / "d",
        out=root / "c.zarr",
        backbone="none",
        frames=8,
        instances=4,
        workers=0,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ToyboxRelational, "prepare", lambda self, progress=None: None
        )  # only the first clips are rendered
        assert extract(config, Silent()).num_failed == 0
    return root / "c.zarr"


def boxes_of(plan: RelationalPlan) -> dict[tuple[str, int], np.ndarray]:
    """Return each instance's boxes (F, 4) by its slot's name and track, as the annotation file has them."""
    found: dict[tuple[str, int], list[list[float]]] = {}
    for record in relational_records(plan, 0):
        for label in record["labels"]:
            corners = [label["box2d"][k] for k in ("x1", "y1", "x2", "y2")]
            found.setdefault((label["standard_category"], label["track"]), []).append(corners)
    return {key: np.array(boxes) for key, boxes in found.items()}


def test_both_clips_of_a_pair_have_the_same_boxes_of_the_same_categories_in_every_frame() -> None:
    for one, other in TWINS[:12]:
        sets = []
        for plan in (one, other):
            by_category: list[list[np.ndarray]] = [[], []]
            for (name, _), boxes in boxes_of(plan).items():
                by_category[name == "hand"].append(boxes)
            stacked = [np.stack(boxes, axis=1) for boxes in by_category]  # (F, instances, 4) of each category
            sets.append([np.stack([np.array(sorted(frame.tolist())) for frame in boxes]) for boxes in stacked])
        for mine, others in zip(*sets, strict=True):
            np.testing.assert_array_equal(mine, others)


def test_classes_say_who_is_where() -> None:
    """Read from the boxes of the first and the last frame, and from where a hand touches."""
    for plan in PLANS[:36]:
        ways = boxes_of(plan)
        things, hands = (
            [w for (name, _), w in ways.items() if (name == "hand") == is_hand] for is_hand in (False, True)
        )
        first, second = PAIRS[plan.pair]
        if plan.pair == TOUCH:
            near = [int(np.argmin([abs(t[k, 0] - hands[0][k, 0]) for t in things])) for k in (0, NUM_FRAMES - 1)]
            expected = first if near[0] == near[1] else second
        else:
            axis = 1 if plan.pair == SWAP else 0
            crossed = [(a[0, axis] < b[0, axis]) != (a[-1, axis] < b[-1, axis]) for a, b in (things, hands)]
            if plan.pair == HOLD:
                expected = first if crossed[0] == crossed[1] else second
            else:
                assert crossed[0] != crossed[1]
                expected = first if crossed[0] else second
        assert plan.entry()["template"] == expected


def test_neither_what_hands_do_nor_what_things_do_says_the_class_of_touch_and_hold() -> None:
    for pair in (TOUCH, HOLD):
        own = [plan for plan in PLANS if plan.pair == pair]
        for part in ("things_cross", "hands_cross", "sides"):
            counts = Counter((getattr(plan, part), plan.number % 2) for plan in own)
            values = {value for value, _ in counts}
            for value in values:
                assert 0.35 < counts[value, 0] / (counts[value, 0] + counts[value, 1]) < 0.65
            assert len(values) > 1 or (pair, part) == (TOUCH, "hands_cross")


def test_classes_are_balanced_and_twins_stay_together(cache: Path) -> None:
    assert Counter((p.entry()["template"], p.is_train) for p in PLANS) == {
        (name, part): count for both in PAIRS for name in both for part, count in ((True, 80), (False, 40))
    }
    reader = open_cache(cache)
    assert reader.protocol_names() == ["relational"]
    table = reader.protocol("relational")
    for plan in PLANS[:FEW]:
        row, twin = (reader.clip_ids.index(PLANS[number].video_id) for number in (plan.number, plan.number ^ 1))
        assert table.split[row] == (Split.TRAIN if plan.is_train else Split.TEST) == table.split[twin]
        assert table.groups[row] == table.groups[twin] and table.group_kind == "scene"
        assert table.labels.classes[table.labels.targets[row]] == plan.entry()["template"]
    reader.close()


def batch_of(cache: Path) -> InstanceBatch:
    """Return the rows of the first clips, twins behind each other, in float64; every instance keeps its look."""
    reader = open_cache(cache)
    rows = np.array([reader.clip_ids.index(plan.video_id) for plan in PLANS[:FEW]])
    boxes, categories = (torch.from_numpy(reader.read_rows(name, rows)) for name in ("boxes", "categories"))
    reader.close()
    torch.manual_seed(1)
    looks = torch.rand(FEW // 2, 1, SPEC.num_instances, SPEC.channels, SPEC.pooled_size, SPEC.pooled_size)
    features = looks.repeat_interleave(2, dim=0).expand(-1, SPEC.num_steps, -1, -1, -1, -1)
    arrays = {"boxes": boxes.double(), "categories": categories, "instance_features": features.double()}
    return InstanceBatch(arrays)


def apart(batch: InstanceBatch, head: str, preset: str, settings: dict[str, object]) -> torch.Tensor:
    """Return how far apart a head of random weights, not small ones, scores the two clips of each pair, (pairs,)."""
    torch.manual_seed(0)
    options = to_plain(HEADS.get(head).presets[preset])
    for key, value in settings.items():
        set_option(options, key, value)
    config = from_plain(HEADS.get(head).config_type, options, head)
    model = HEADS.get(head).build(config, SPEC, 2 * len(PAIRS)).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.5)
        logits = model(batch).logits
    return (logits[::2] - logits[1::2]).abs().amax(dim=1)


def test_boxes_and_looks_averaged_over_a_frame_are_those_of_the_twin(cache: Path) -> None:
    batch = batch_of(cache)
    for name in ("boxes", "instance_features"):
        mean = batch.array(name).mean(dim=2)
        assert (mean[::2] - mean[1::2]).abs().max() < 1e-7  # float32 boxes
        assert (batch.array("boxes")[::2] != batch.array("boxes")[1::2]).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("streams", ["layout", "both"])
@pytest.mark.parametrize("preset", [name for name, c in HEADS.get("base").presets.items() if not c.joint.motion])
def test_a_head_that_averages_instances_scores_both_clips_of_a_pair_alike(
    cache: Path, preset: str, streams: str
) -> None:
    """For any weights. Appearance and layout are averaged apart, so that even both do not say which thing is where."""
    assert apart(batch_of(cache), "base", preset, {"joint.streams": streams}).max() < 1e-9


@pytest.mark.parametrize(
    ("head", "settings", "blind"),
    [
        ("nl", {"joint.streams": "layout"}, True),
        ("stlt", {}, True),
        ("stin", {"joint.streams": "layout"}, False),
        ("sfi", {"joint.streams": "layout"}, False),
        ("base", {"joint.streams": "layout", "joint.motion": True}, False),
    ],
)
def test_what_follows_no_instance_over_time_is_blind_too_and_what_does_tells_pairs_apart(
    cache: Path, head: str, settings: dict[str, object], blind: bool
) -> None:
    """Attention over all instances, or over each frame's, knows no tracks; motion is a link over time."""
    found = apart(batch_of(cache), head, "small", settings)
    assert found.max() < 1e-9 if blind else found.min() > 1e-3
