"""COCO's masks and classes: run lengths as text, and the names of the numbers 0 to 80.

A mask of h × w is the lengths of runs of 0 and 1 in turn, from 0, in columns from top to bottom, from left to right.
From the fourth length on, the difference to the length two before is written instead. A number is written in
characters of code 48 + b, b of six bits: five bits of the number, lowest first, and one that says that a character
follows. Bit 5 of the number's last character is its sign, in two's complement.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError

BACKGROUND, PERSON = 0, 1
MASK_SIDE = 100
"""Rows and columns of masks in files: a picture over the whole frame, whatever its shape."""
_FIRST_CODE, _MORE, _SIGN, _BITS = 48, 0x20, 0x10, 5
_MAX_CHARACTERS = 7  # of a number: 35 bits
CLASSES = (
    "background",
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)
"""Names of the class numbers; 1 to 80 without gaps, as masks of data sets count them, and 0 for what is no object."""


_UNUSED_OF_91 = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
NUMBERS_OF_91 = np.array(
    [0 if n in _UNUSED_OF_91 else n - sum(u < n for u in _UNUSED_OF_91) for n in range(91)], np.int16
)
"""Number of `CLASSES` for each of 0 to 90, as COCO's annotations and networks trained on them count; 0 for a gap."""


def decode_mask(counts: bytes, height: int, width: int, where: str) -> NDArray[np.bool_]:
    """Return a mask, (h, w), True where the object is.

    Args:
        counts: run lengths as text.
        height: rows.
        width: columns.
        where: names the mask, for messages.

    Raises:
        InputError: the text is none of run lengths, or they do not sum to h · w.
    """
    lengths = _run_lengths(np.frombuffer(counts, np.uint8).astype(np.int64) - _FIRST_CODE, where)
    if (lengths < 0).any() or lengths.sum() != height * width:
        found = "a run of negative length" if (lengths < 0).any() else f"{lengths.sum():,} pixels"
        raise InputError(f"{where}: its run lengths give {found}; expected {height} · {width} = {height * width:,}")
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return flat.reshape(width, height).T


def _run_lengths(codes: NDArray[np.int64], where: str) -> NDArray[np.int64]:
    ends = np.flatnonzero((codes & _MORE) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    sizes = ends - starts + 1
    whole = len(codes) and ((codes >= 0) & (codes < 2 * _MORE)).all() and len(ends) and ends[-1] == len(codes) - 1
    if not whole or sizes.max() > _MAX_CHARACTERS:
        raise InputError(
            f"{where}: its counts are no run lengths as COCO writes them, or are cut off; download it again"
        )
    place = np.arange(len(codes)) - np.repeat(starts, sizes)
    numbers = np.add.reduceat((codes & (_MORE - 1)) << (_BITS * place), starts)
    numbers = np.where(codes[ends] & _SIGN, numbers - (np.int64(1) << (_BITS * sizes)), numbers)
    for first in (1, 2):  # the first length is added to none
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def encode_mask(mask: NDArray[np.bool_]) -> str:
    """Return a mask, (h, w), as run lengths that `decode_mask` reads."""
    flat = np.concatenate([[False], mask.T.ravel()])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    lengths = np.diff(ends, prepend=0, append=mask.size)
    steps = lengths.copy()
    steps[3:] -= lengths[1:-2]
    return "".join(_characters(step) for step in steps.tolist())


def _characters(number: int) -> str:
    text = ""
    while True:
        bits, number = number & (_MORE - 1), number >> _BITS
        if number == (-1 if bits & _SIGN else 0):
            return text + chr(_FIRST_CODE + bits)
        text += chr(_FIRST_CODE + (bits | _MORE))
