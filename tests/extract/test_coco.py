"""COCO's run lengths against a literal writer and reader, and on real masks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from fixtures.run_lengths import encode_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from ifcar.errors import InputError
from ifcar.extract.coco import CLASSES, decode_mask
from ifcar.extract.safe_pickle import load_pickle


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_a_written_mask_is_read_as_it_was(seed: int, height: int, width: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    blocks = rng.random((height // 3 + 1, width // 5 + 1)) < share  # long and short runs
    mask = np.kron(blocks, np.ones((3, 5), np.bool_))[:height, :width] > 0
    np.testing.assert_array_equal(decode_mask(encode_mask(mask), height, width, "a mask"), mask)


def test_runs_go_down_the_columns_from_0() -> None:
    # 1 of 0, 3 of 1, 2 of 0 over two columns of three
    assert decode_mask(bytes([48 + 1, 48 + 3, 48 + 2]), 3, 2, "a mask").tolist() == [
        [False, True],
        [True, False],
        [True, False],
    ]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (bytes([48 + 1, 48 + 3]), r"m: its run lengths give 4 pixels; expected 3 · 2 = 6"),
        (bytes([48 + 7]), "give 7 pixels"),
        (bytes([48 + 6, 48 + 31, 48 + 1]), "a run of negative length"),
        (b"", "no run lengths as COCO writes them"),
        (bytes([48 + 6, 48 + 32]), "cut off"),
        (b"\x07", "no run lengths"),
        (b"\xff", "no run lengths"),
        (bytes([48 + 32] * 20 + [48]), "no run lengths"),
    ],
)
def test_what_is_no_mask_is_refused(counts: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_mask(counts, 3, 2, "m")


def test_classes_are_those_of_a_published_detector_without_its_gaps() -> None:
    categories = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert CLASSES[1:] == tuple(name for name in categories[1:] if name != "N/A") and len(CLASSES) == 81


@pytest.mark.skipif("IFCAR_SHARED" not in os.environ, reason="IFCAR_SHARED is not set: no real masks")
def test_real_masks_lie_in_their_boxes() -> None:
    root = Path(os.environ["IFCAR_SHARED"]) / "data" / "vlog"
    seen = 0
    for path in sorted(root.rglob("*.pkl")):
        content = load_pickle(path)
        assert isinstance(content, dict)
        for boxes, segments in zip(content["boxes"], content["segms"], strict=True):
            for box, segment in (
                (b, s) for bs, ss in zip(boxes, segments, strict=True) for b, s in zip(bs, ss, strict=True)
            ):
                rows, columns = np.nonzero(decode_mask(segment["counts"], 100, 100, str(path)))
                assert columns.min() >= box[0] - 3 and columns.max() <= box[2] + 3
                assert rows.min() >= box[1] - 3 and rows.max() <= box[3] + 3
                seen += 1
    assert seen == 1131
