"""The facts of a backbone: what it reads, the maps that it gives, and where its published weights lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from ifcar.errors import InputError, one_of

Reads = Literal["pixels", "audio", "nothing"]
Triple = tuple[float, float, float]
INSTANCES, FRAMES = "instances", "frames"
"""Names of maps: instances and the grid are taken from the first, a step's average from the second, and all from the
only one of a backbone that gives one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalisation:
    """What RGB in [0, 1] goes through: (x − mean) / std, channel by channel."""

    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)

    @classmethod
    def of_all(cls, mean: float, std: float) -> Normalisation:
        """Return the same numbers for all three channels."""
        return cls(mean=(mean,) * 3, std=(std,) * 3)


IMAGENET: Final = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedWeights:
    """Weights that someone published.

    Args:
        address: where they lie; https:, or what `fetch` understands.
        license: their licence, and their origin.
        normalisation: of the frames that they were trained on.
        sha256: of the file, as many leading hexadecimal digits as were published; None where none were.
        fetch: brings the file to a folder, where a plain download does not, and returns its path.
        ways_out: what to do where it cannot be fetched.
    """

    address: str
    license: str
    normalisation: Normalisation
    sha256: str | None = None
    fetch: Callable[[PublishedWeights, Path], Path] | None = None
    ways_out: str = "fetch it elsewhere and give it as --weights FILE, or use --weights random:0 for untrained features"


@dataclass(frozen=True, kw_only=True, slots=True)
class NoConfig:
    """Of a family that has no options of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneSpec:
    """The facts of one backbone for views of one size.

    Args:
        name: registered name, with the variant behind a colon where the family has several.
        reads: what a view is to the network: its "pixels", its "audio", or "nothing".
        num_frames: T.
        num_steps: T′, feature steps.
        crop_size: S, side of the square in pixels.
        layer_channels: channels of `layer`; 0 where nothing is read.
        maps: name → (H, W); empty where nothing is read. A backbone without a map `INSTANCES` pools no instances.
        spatial_stride: pixels per cell of the map that instances are pooled from.
        strides: every spatial stride that there is, the default first.
        layer: the layer whose output is that map, in the published model's names.
        frame_multiple: T is a multiple of this.
        normalisation: of the input.
        published: tag → weights that can be fetched; the first are the default.
        facts: what the weights say of their network (see `BackboneFamily.facts`), and all that `build` needs beyond the
            fields here. JSON values; they enter the cache's fingerprint.
        config: the family's own options; they enter the fingerprint too, unless there are none.
        reduction: channels after a 1×1×1 convolution on top of `layer`; 0 without one.
    """

    name: str
    num_frames: int
    num_steps: int
    crop_size: int
    reads: Reads = "pixels"
    layer_channels: int = 0
    maps: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    spatial_stride: int = 0
    strides: Sequence[int] = ()
    layer: str = ""
    frame_multiple: int = 1
    normalisation: Normalisation = Normalisation()
    published: Mapping[str, PublishedWeights] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    config: Any = NoConfig()
    reduction: int = 0

    @property
    def channels(self) -> int:
        """C, of every map; 0 where nothing is read."""
        return self.reduction or self.layer_channels

    @property
    def grid_size(self) -> tuple[int, int] | None:
        """(H, W) of the map that the grid is taken from; None where nothing is read."""
        return self.maps[map_of(self.maps, INSTANCES)] if self.maps else None

    def reduced(self, channels: int) -> BackboneSpec:
        """Return the facts with a 1×1×1 convolution to `channels` on top; 0 leaves them as they are."""
        if not channels:
            return self
        if self.reduction or not self.maps or channels < 1:
            raise InputError(f"backbone {self.name!r} cannot be reduced to {channels} channels")
        return replace(self, reduction=channels)


def map_of(maps: Mapping[str, Any], use: str) -> str:
    """Return the name of the map for a use, `INSTANCES` or `FRAMES`: the one of that name, or the only one."""
    return use if use in maps else next(iter(maps))


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneRequest:
    """What a family makes its facts from.

    Args:
        name: as the user gave it, variant included.
        num_frames: T.
        crop_size: S.
        spatial_stride: as given; None takes the backbone's default.
        published: tag → weights that can be fetched, the default first.
        facts: what the weights say of their network.
        config: the family's own options.
    """

    name: str
    num_frames: int
    crop_size: int
    spatial_stride: int | None = None
    published: Mapping[str, PublishedWeights] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    config: Any = NoConfig()

    def stride_among(self, strides: Sequence[int]) -> int:
        """Return the stride that was given, or else the first of those that there are.

        Raises:
            InputError: the one given is not among them.
        """
        if self.spatial_stride is None:
            return strides[0]
        if self.spatial_stride not in strides:
            known = one_of(sorted(strides))
            raise InputError(f"backbone {self.name!r} has no spatial stride {self.spatial_stride}; expected {known}")
        return self.spatial_stride

    def spec_of_frames(self, reads: Reads, **facts: Any) -> BackboneSpec:
        """Return the facts of what looks at each frame's time by itself and takes any number of them, T′ = T.

        Raises:
            InputError: no frame is asked for.
        """
        frames, size = self.num_frames, self.crop_size
        if frames < 1:
            raise InputError(f"backbone {self.name!r} cannot take {frames} frames; expected at least 1")
        return BackboneSpec(name=self.name, reads=reads, num_frames=frames, num_steps=frames, crop_size=size, **facts)

    def spec(
        self,
        *,
        channels: int,
        layer: str,
        strides: Sequence[int],
        map_strides: Mapping[str, int] | None = None,
        patch: int = 1,
        temporal_stride: int = 1,
        frame_multiple: int | None = None,
        normalisation: Normalisation | None = None,
    ) -> BackboneSpec:
        """Return the facts of a network that reads pixels, for this size of views.

        Args:
            channels: C.
            layer: see `BackboneSpec`.
            strides: every spatial stride that there is, the default first.
            map_strides: name of a map → pixels per cell; default: one map of the stride that was asked for.
            patch: S must be a multiple of this.
            temporal_stride: frames per feature step.
            frame_multiple: T must be a multiple of this; default: `temporal_stride`.
            normalisation: default: that of the default weights.

        Raises:
            InputError: the network has no such stride, or cannot take T frames or S pixels.
        """
        stride = self.stride_among(strides)
        multiple = frame_multiple or temporal_stride
        if self.num_frames < 1 or self.num_frames % multiple:
            raise InputError(
                f"backbone {self.name!r} at spatial stride {stride} cannot take {self.num_frames} frames; expected a "
                f"positive multiple of {multiple}"
            )
        if self.crop_size < 1 or self.crop_size % patch:
            below = max(1, self.crop_size // patch) * patch
            raise InputError(
                f"backbone {self.name!r} cannot take crops of {self.crop_size} pixels; expected a multiple of {patch}, "
                f"such as --crop {below} or {below + patch}"
            )
        if normalisation is None:
            normalisation = next(iter(self.published.values())).normalisation
        sides = {name: -(-self.crop_size // s) for name, s in (map_strides or {INSTANCES: stride}).items()}
        return BackboneSpec(
            name=self.name,
            num_frames=self.num_frames,
            num_steps=self.num_frames // temporal_stride,
            crop_size=self.crop_size,
            layer_channels=channels,
            maps={name: (side, side) for name, side in sides.items()},
            spatial_stride=stride,
            strides=tuple(strides),
            layer=layer,
            frame_multiple=multiple,
            normalisation=normalisation,
        )
