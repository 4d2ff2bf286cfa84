"""Clips of hands and objects: exact masks, contact by geometry, exact reversal, and what the two protocols tell."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ifcar.cache.open import open_cache
from ifcar.cache.schema import Category, Split
from ifcar.extract.datasets.toybox import ToyboxContact
from ifcar.extract.decode import cut_frames, open_source
from ifcar.extract.geometry import FULL_FRAME
from ifcar.extract.toybox.contact import (
    CLASSES,
    MOTIONS,
    NUM_CLIPS,
    NUM_FRAMES,
    SHOWN,
    build_contact,
    contact_tracks,
    plan_contact,
    shape_of,
)
from ifcar.extract.toybox.generate import generate_toybox
from ifcar.extract.toybox.looks import SHAPES
from ifcar.extract.toybox.render import tight_boxes, visible_masks
from ifcar.heads.contract import InstanceBatch
from ifcar.heads.orn import ORN
from ifcar.heads.orn_config import ORNConfig
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.progress import Silent

FEW = 12
PLANS = [plan_contact(0, number) for number in range(NUM_CLIPS)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("contact")
    generate_toybox(root, size="contact", num_clips=FEW, workers=1)
    return root


@pytest.fixture(scope="module")
def cache(root: Path) -> Path:
    out = root.parent / "contact.zarr"
    config = ExtractConfig(
        dataset="toybox-contact", data_root=root, out=out, backbone="none", frames=8, instances=6, workers=0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToyboxContact, "prepare", lambda self, progress=None: None)  # only the first clips are rendered
        assert extract(config, Silent()).num_failed == 0
    return out


@pytest.fixture
def dataset(root: Path) -> ToyboxContact:
    dataset = ToyboxContact(root)
    dataset.listing(needs_pixels=True)
    return dataset


def test_an_object_that_is_there_is_touched_half_of_the_time_whatever_else_is_there() -> None:
    present, touched, pairs = Counter[str](), Counter[str](), Counter[tuple[int, bool]]()
    for plan in PLANS[::2]:
        shapes = [shape_of(noun) for noun in plan.nouns]
        assert len(set(shapes)) == len(shapes) and 2 <= len(shapes) <= 4 and 1 <= len(plan.reaches) <= 2
        present.update(shapes)
        touched.update(plan.touched())
        pairs.update((len(shapes), shape in plan.touched()) for shape in shapes)
    assert set(present) == set(SHAPES) and min(touched.values()) >= 15
    for count in (2, 3, 4):
        assert abs(pairs[count, True] / (pairs[count, True] + pairs[count, False]) - 0.5) < 0.05
    assert abs(sum(touched.values()) / sum(present.values()) - 0.5) < 0.02


@pytest.mark.slow
def test_touched_objects_and_no_others_overlap_a_hand() -> None:
    """Seen in the masks: a hand comes within three pixels of what it touches, and stays five away from all else."""
    for plan in PLANS[:60:2]:
        tracks = contact_tracks(plan, 0)
        masks, hands = tracks.values["masks"] > 127, tracks.categories == Category.SUBJECT
        nearest = np.full(len(plan.nouns), np.inf)
        for frame in SHOWN:
            no_hand = (~masks[frame][hands].any(axis=0)).astype(np.uint8)
            distance = cv2.distanceTransform(no_hand, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            for k in range(len(plan.nouns)):
                nearest[k] = min(nearest[k], distance[masks[frame, k]].min(initial=np.inf))
        touched = [shape_of(noun) in plan.touched() for noun in plan.nouns]
        assert [bool(pixels < 3) for pixels in nearest] == touched == [bool(pixels < 5) for pixels in nearest]


@pytest.mark.slow
def test_every_second_clip_is_the_one_before_in_reverse_pixel_by_pixel(root: Path, dataset: ToyboxContact) -> None:
    for forward, backward in zip(PLANS[:FEW:2], PLANS[1:FEW:2], strict=True):
        assert forward.is_train == backward.is_train and MOTIONS[forward.motion][1] == backward.entry()["template"]
        shown = []
        for plan in (forward, backward):
            with open_source(root / "videos" / f"{plan.video_id}.mp4") as source:
                shown.append(cut_frames(source, list(range(NUM_FRAMES)), FULL_FRAME, 64, False))
        np.testing.assert_array_equal(shown[0], shown[1][::-1])
        dark = [frame for frame in range(NUM_FRAMES) if frame not in SHOWN]
        assert shown[0][dark].max() <= 2 and shown[0][list(SHOWN)].mean(axis=(1, 2, 3)).min() > 20
        one, other = dataset.tracks(forward.video_id), dataset.tracks(backward.video_id)
        np.testing.assert_array_equal(one.boxes, other.boxes[::-1])
        np.testing.assert_array_equal(one.values["masks"], other.values["masks"][::-1])
        assert np.isnan(one.boxes[dark]).all() and np.isfinite(one.boxes[list(SHOWN)]).any(axis=(1, 2)).all()


def test_masks_are_what_is_seen(root: Path) -> None:
    """No pixel is given away twice, and a mask reaches as far as its instance, but for what is nearer."""
    plan = next(plan for plan in PLANS if plan.touched())
    scene = build_contact(plan, 0)
    masks = visible_masks(scene)
    assert masks.sum(axis=1, dtype=np.int64).max() <= 257  # two roundings
    boxes, frame = tight_boxes(masks), SHOWN[len(SHOWN) // 2]
    for k, track in enumerate(scene.tracks):
        whole = track.boxes(scene.camera)[frame]
        tight = boxes[frame, k]
        assert (tight[:2] >= whole[:2] - 1.5).all() and (tight[2:] <= whole[2:] + 1.5).all()
        if track.slot < 0:  # nothing hides a hand
            np.testing.assert_allclose(tight[:2], whole[:2], atol=2)


def test_arrays_and_protocols_reach_the_cache(cache: Path) -> None:
    reader = open_cache(cache)
    assert reader.spec.array("object_classes").classes == CLASSES == ("background", "hand", *SHAPES)
    assert reader.protocol_names() == ["contact", "order"]
    order, contact = reader.protocol("order"), reader.protocol("contact")
    masks, classes = reader.read_rows("masks", np.arange(FEW)), reader.table("object_classes")
    for plan in PLANS[:FEW]:
        row = reader.clip_ids.index(plan.video_id)
        assert (
            not reader.table("categories")[row, [0, 7]].any() and reader.table("categories")[row, 1:7].any(axis=1).all()
        )
        twin = reader.clip_ids.index(PLANS[plan.number ^ 1].video_id)
        np.testing.assert_array_equal(masks[row], masks[twin][::-1])
        np.testing.assert_array_equal(classes[row], classes[twin][::-1])
        assert order.split[row] == contact.split[row] == (Split.TRAIN if plan.is_train else Split.TEST)
        assert order.labels.classes[order.labels.targets[row]] == MOTIONS[plan.motion][plan.is_reversed]
        shown = {contact.labels.classes[k] for k in np.flatnonzero(contact.labels.targets[row])}
        assert shown == {f"A hand touches a {shape}" for shape in plan.touched()}
        assert order.groups[row] == order.groups[twin] == contact.groups[row] and order.group_kind == "scene"
    reader.close()


@pytest.mark.slow
def test_relations_within_a_frame_and_no_memory_see_a_clip_as_its_reverse(cache: Path) -> None:
    """For any weights: `intra` with `mlp` adds up the frames; what looks back or remembers tells them apart."""
    reader = open_cache(cache)
    rows = np.array([reader.clip_ids.index(plan.video_id) for plan in PLANS[:FEW]])
    names = ("masks", "object_classes", "categories")
    arrays = {name: torch.from_numpy(reader.read_rows(name, rows)) for name in names}
    spec = reader.spec
    reader.close()
    for pairs, f in product(("inter", "intra"), ("gru", "mlp")):
        torch.manual_seed(0)
        config = ORNConfig(heads="object", features=("shape", "class"), pairs=pairs, f=f)
        head = ORN(config, spec, 8).double().eval()
        with torch.no_grad():
            logits = head(InstanceBatch(arrays)).logits
        apart = (logits[::2] - logits[1::2]).abs().amax(dim=1)
        if (pairs, f) == ("intra", "mlp"):
            assert apart.max() < 1e-12
        else:
            assert apart.min() > 1e-6
