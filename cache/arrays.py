"""Which arrays over rows a cache holds, said as data: whoever carries them loops over specs and knows no fixed list.

Axis letters (the same everywhere): R rows, V views, T frames, T′ feature steps, T_L frames of the layout (T… is time),
N instances, C channels, P pooled size, H W map, h w sides of a picture of the crop, such as a mask, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.lacking import lacking
from ifcar.errors import CacheMismatchError, InputError, one_of

RowArrays = dict[str, NDArray[Any]]  # of some rows, by name
Role = Literal["feature", "layout", "bookkeeping"]
MAX_SIDE = 1 << 14
MAX_ARRAYS = 64
DTYPES = ("bool", "uint8", "int16", "int32", "int64", "float16", "float32")
RESERVED = ("commits", "protocols", "clips")  # groups beside the arrays
PICTURE = ("h", "w")
PICTURE_SIZES = {"h": 28, "w": 28}


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySpec:
    """One array over rows.

    Args:
        name: its name in the cache, in batches and in what heads read: lower case letters, digits and `_`. Where
            several caches are read as one, that of the stream and a slash stand before it.
        axes: of one row: letters, whose sizes the cache states, or numbers where a size is the same everywhere.
        dtype: numpy type name, one of `DTYPES`.
        role: "feature", made by a backbone; "layout", where and what the instances are; or "bookkeeping", how the view
            was taken and what became of it.
        sharded: stored one row a chunk and read row by row, for large arrays; else a block a chunk and read whole.
        empty: what empty slots and failed rows hold.
        classes: names of the classes whose numbers the array holds; empty for an array of anything else.
    """

    name: str
    axes: tuple[str | int, ...]
    dtype: str
    role: Role
    sharded: bool = False
    empty: int = 0
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch("([a-z0-9][a-z0-9_-]{0,31}/)?[a-z][a-z0-9_]{0,63}", self.name) or self.name in RESERVED:
            raise InputError(
                f"array name {self.name!r:.200} is not usable; expected up to 64 of a to z, 0 to 9 and _, and none of "
                + ", ".join(RESERVED)
            )
        for axis in self.axes:
            if not (isinstance(axis, str) and axis) and not (type(axis) is int and 1 <= axis <= MAX_SIDE):
                raise InputError(f"array {self.name!r} has the axis {axis!r}; expected a letter or 1 to {MAX_SIDE:,}")
        for what, value, known in (("type", self.dtype, DTYPES), ("role", self.role, get_args(Role))):
            if value not in known:
                raise InputError(f"array {self.name!r} has the {what} {value!r}; expected {one_of(known)}")

    @property
    def is_by_slot(self) -> bool:
        """Whether each instance slot has values of its own."""
        return "N" in self.axes

    @property
    def time_axes(self) -> tuple[int, ...]:
        """Which of its axes run over time: those whose letters, without a stream's name, begin with T."""
        letters = [axis.rpartition("/")[2] if isinstance(axis, str) else "" for axis in self.axes]
        return tuple(place for place, letter in enumerate(letters) if letter.startswith("T"))

    @property
    def is_category(self) -> bool:
        """Whether it says which slots hold a subject, an object or nothing, see `Category`."""
        name = self.name.rpartition("/")[2]  # without a stream's
        return self.role == "layout" and (name == "categories" or name.endswith("_categories"))

    @property
    def is_picture(self) -> bool:
        """Whether its last axes are rows and columns over the crop, so that it is cropped and mirrored as pixels."""
        return self.axes[-2:] == PICTURE


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheSpec:
    """The arrays of a cache and the sizes of their axes; heads are built from it.

    Args:
        sizes: axis letter → size; T′ equals T where no feature is stored.
        arrays: every array over rows, in the order in which they are listed.
    """

    sizes: Mapping[str, int]
    arrays: tuple[ArraySpec, ...]

    def __post_init__(self) -> None:
        for letter, size in self.sizes.items():
            if type(size) is not int or not 1 <= size <= MAX_SIDE:
                raise InputError(f"{letter} is {size!r}; expected 1 to {MAX_SIDE:,}")
        if self.num_steps and self.num_frames % self.num_steps:
            raise InputError(f"T={self.num_frames} must be a multiple of T′={self.num_steps}")
        names = self.names()
        if len(names) > MAX_ARRAYS:
            raise InputError(f"{len(names)} arrays; a cache holds at most {MAX_ARRAYS}")
        for array in self.arrays:
            if names.count(array.name) > 1:
                raise InputError(f"array {array.name!r} is given twice; every array needs its own name")
            for axis in array.axes:
                if isinstance(axis, str) and axis not in self.sizes:
                    known = ", ".join(self.sizes)
                    raise InputError(f"array {array.name!r} has the axis {axis!r}; expected a number or one of {known}")

    @classmethod
    def standard(
        cls,
        *,
        num_frames: int,
        num_steps: int,
        num_instances: int,
        channels: int = 0,
        pooled_size: int = 0,
        grid_size: tuple[int, int] | None = None,
        more: Sequence[ArraySpec] = (),
        layout_frames: int = 0,
    ) -> Self:
        """Return what extraction stores: features where there is a backbone, boxes and categories, the view.

        Args:
            num_frames: T.
            num_steps: T′.
            num_instances: N.
            channels: C; 0 when no pixels are read.
            pooled_size: P; 0 when no instances are pooled.
            grid_size: (H, W) of `grid_features`, or None when that array is not stored.
            more: arrays that the dataset gives; scores are kept at the frames of the layout only.
            layout_frames: T_L, of boxes at frames of their own; 0 without.
        """
        sizes = {"T": num_frames, "T′": num_steps, "N": num_instances}
        arrays: list[ArraySpec] = []
        if channels:
            sizes["C"] = channels
            if pooled_size:
                sizes["P"] = pooled_size
                arrays.append(INSTANCE_FEATURES)
            arrays.append(FRAME_FEATURES)
            if grid_size is not None:
                sizes |= dict(zip(("H", "W"), grid_size, strict=True))
                arrays.append(GRID_FEATURES)
        if any(letter in array.axes for array in more for letter in PICTURE):
            sizes |= PICTURE_SIZES
        arrays += [BOXES, CATEGORIES, *(array for array in more if array != SCORES)]
        if layout_frames:
            sizes["T_L"] = layout_frames
            arrays += [over_layout(array) for array in (BOXES, CATEGORIES, *(a for a in more if a == SCORES))]
        return cls(sizes=sizes, arrays=(*arrays, *BOOKKEEPING))

    @property
    def num_frames(self) -> int:
        """T, frames of a view."""
        return self.sizes.get("T", 0)

    @property
    def num_steps(self) -> int:
        """T′, feature steps."""
        return self.sizes.get("T′", 0)

    @property
    def num_instances(self) -> int:
        """N, instance slots."""
        return self.sizes.get("N", 0)

    @property
    def channels(self) -> int:
        """C, feature channels; 0 when no pixels are read."""
        return self.sizes.get("C", 0)

    @property
    def pooled_size(self) -> int:
        """P, RoIAlign output bins a side; 0 when no instances are pooled."""
        return self.sizes.get("P", 0)

    @property
    def grid_size(self) -> tuple[int, int] | None:
        """(H, W) of the feature map, or None when it is not stored."""
        return (self.sizes["H"], self.sizes["W"]) if "H" in self.sizes else None

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def names(self, role: Role | None = None) -> tuple[str, ...]:
        """Return the names of all arrays, or of those of one role."""
        return tuple(array.name for array in self.arrays if role in (None, array.role))

    def array(self, name: str) -> ArraySpec:
        """Return an array's spec. Raises CacheMismatchError, naming what there is, when the cache has none."""
        for array in self.arrays:
            if array.name == name:
                return array
        raise CacheMismatchError(f"there is {lacking(name, self.names())}")

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one row of an array."""
        return tuple(self.sizes[axis] if isinstance(axis, str) else axis for axis in self.array(name).axes)

    def row_bytes(self, names: Iterable[str]) -> int:
        """Return the size in bytes of one row of these arrays together, without checksums."""
        return sum(
            int(np.prod(self.shape(name), dtype=np.int64)) * np.dtype(self.array(name).dtype).itemsize for name in names
        )

    def reads_features(self, names: Iterable[str]) -> bool:
        """Return whether any of these arrays comes from a backbone."""
        return any(self.array(name).role == "feature" for name in names)

    def reads_instances(self, names: Iterable[str]) -> bool:
        """Return whether any of these arrays says something of single instances."""
        return any(self.array(name).is_by_slot for name in names)

    def resized(self, **sizes: int) -> CacheSpec:
        """Return the same arrays with other sizes of some axes."""
        return replace(self, sizes={**self.sizes, **sizes})

    def check(self, arrays: Mapping[str, NDArray[Any]], *leading: int) -> None:
        """Check that these are all arrays of the spec, each of its type and shape.

        Args:
            arrays: by name, each (*leading, …).
            leading: sizes of the axes before those of a row.

        Raises:
            InputError: names the array.
        """
        names = set(self.names())
        if set(arrays) != names:
            missing, extra = sorted(names - set(arrays)), sorted(set(arrays) - names)
            raise InputError(f"missing arrays {missing}, unknown arrays {extra}")
        for array in self.arrays:
            shape, found = (*leading, *self.shape(array.name)), arrays[array.name]
            if found.shape != shape or found.dtype != np.dtype(array.dtype):
                raise InputError(f"{array.name} is {found.dtype} {found.shape}, expected {array.dtype} {shape}")

    def empty(self, name: str, num_rows: int) -> NDArray[Any]:
        """Return rows of an array, (num_rows, …), that hold nothing."""
        array = self.array(name)
        return np.full((num_rows, *self.shape(name)), array.empty, np.dtype(array.dtype))

    def empty_rows(self, num_rows: int) -> dict[str, NDArray[Any]]:
        """Return rows of every array, by name, that hold nothing; `status` is PENDING everywhere."""
        return {name: self.empty(name, num_rows) for name in self.names()}


def over_layout(array: ArraySpec) -> ArraySpec:
    """Return the array of the same values at the T_L frames of the layout."""
    return replace(array, name=f"{LAYOUT}{array.name}", axes=("T_L", *array.axes[1:]))


def _feature(name: str, *axes: str) -> ArraySpec:
    return ArraySpec(name=name, axes=axes, dtype="float16", role="feature", sharded=True)


def _of_view(name: str, dtype: str, *axes: str | int) -> ArraySpec:
    return ArraySpec(name=name, axes=axes, dtype=dtype, role="bookkeeping")


INSTANCE_FEATURES = _feature("instance_features", "T′", "N", "C", "P", "P")
FRAME_FEATURES = _feature("frame_features", "T′", "C")
GRID_FEATURES = _feature("grid_features", "T′", "C", "H", "W")
FEATURES = (INSTANCE_FEATURES, FRAME_FEATURES, GRID_FEATURES)
BOXES = ArraySpec(name="boxes", axes=("T", "N", 4), dtype="float32", role="layout")
CATEGORIES = ArraySpec(name="categories", axes=("T", "N"), dtype="uint8", role="layout")
SCORES = ArraySpec(name="scores", axes=("T", "N"), dtype="float32", role="layout")
"""Of detected boxes; stored at the frames of the layout only."""
LAYOUT = "layout_"  # before the names of arrays over the T_L frames of the layout
MASKS = ArraySpec(name="masks", axes=("T", "N", *PICTURE), dtype="uint8", role="layout", sharded=True)
BOOKKEEPING = (
    _of_view("frame_indices", "int32", "T"),
    _of_view("crop", "float32", 4),
    _of_view("flip", "bool"),
    _of_view("sampling_rate", "float32"),
    _of_view("augmented", "bool"),
    _of_view("status", "uint8"),
)


def object_classes(names: Sequence[str]) -> ArraySpec:
    """Return the spec of `object_classes`, a number into these names for each slot; −1 = none."""
    return ArraySpec(
        name="object_classes", axes=("T", "N"), dtype="int16", role="layout", empty=-1, classes=tuple(names)
    )
