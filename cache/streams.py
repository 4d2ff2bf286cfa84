"""Several caches as one: the arrays of each stand under the name of its stream, "ego/grid_features"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ifcar.cache.arrays import ArraySpec, CacheSpec
from ifcar.errors import InputError

ONLY = ""  # the stream of a cache by itself, whose arrays keep their names
_CLASSES = "K"


def in_stream(stream: str, name: str) -> str:
    """Return what an array, or an axis, of a stream is called among those of all streams."""
    return f"{stream}/{name}" if stream else name


def stream_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the streams that arrays of these names belong to, in the order of their first arrays."""
    return tuple(dict.fromkeys(name.rpartition("/")[0] for name in names))


def joined_spec(streams: Mapping[str, CacheSpec], classes: Mapping[str, int]) -> CacheSpec:
    """Return the arrays of all streams, each under its stream's name and with sizes of its own.

    Args:
        streams: by name, at least one.
        classes: K of each label space by name.

    Raises:
        InputError: there are none, or one has no name.
    """
    if not streams or ONLY in streams:
        raise InputError("streams need names, and at least one")
    arrays, sizes = list[ArraySpec](), {in_stream(_CLASSES, space): count for space, count in classes.items()}
    for stream, spec in streams.items():
        sizes |= {in_stream(stream, letter): size for letter, size in spec.sizes.items()}
        for array in spec.arrays:
            axes = tuple(in_stream(stream, axis) if isinstance(axis, str) else axis for axis in array.axes)
            arrays.append(replace(array, name=in_stream(stream, array.name), axes=axes))
    return CacheSpec(sizes=sizes, arrays=tuple(arrays))


def stream_spec(spec: CacheSpec, stream: str) -> CacheSpec:
    """Return the spec of one stream, as its cache by itself has it.

    Raises:
        InputError: there is no such stream.
    """
    if stream == ONLY:
        return spec
    arrays = tuple(array for array in spec.arrays if array.name.rpartition("/")[0] == stream)
    if not arrays:
        raise InputError(f"no stream {stream!r}; there are: {', '.join(stream_names(spec.names())) or 'none'}")
    return CacheSpec(
        sizes={letter.rpartition("/")[2]: n for letter, n in spec.sizes.items() if letter.startswith(f"{stream}/")},
        arrays=tuple(
            replace(
                array,
                name=array.name.rpartition("/")[2],
                axes=tuple(axis.rpartition("/")[2] if isinstance(axis, str) else axis for axis in array.axes),
            )
            for array in arrays
        ),
    )


def space_sizes(spec: CacheSpec) -> dict[str, int]:
    """Return K of each label space that a joined spec states, by name."""
    start = in_stream(_CLASSES, "")
    return {letter.removeprefix(start): n for letter, n in spec.sizes.items() if letter.startswith(start)}
