"""Several caches as one: the arrays of each stand under the name of its stream, "ego/grid_features"."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from ifcar.cache.arrays import ArraySpec, CacheSpec
from ifcar.errors import InputError

ONLY = ""  # the stream of a cache by itself, whose arrays keep their names
_CLASSES, _MULTI = "K", "multi"
_NAME = re.compile("[a-z0-9][a-z0-9_-]{0,31}")


def in_stream(stream: str, name: str) -> str:
    """Return what an array, or an axis, of a stream is called among those of all streams."""
    return f"{stream}/{name}" if stream else name


def stream_of(name: str) -> tuple[str, str]:
    """Return the stream of an array, or an axis, and what it is called there."""
    stream, _, own = name.rpartition("/")
    return stream, own


def stream_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the streams that arrays of these names belong to, in the order of their first arrays."""
    named = tuple(dict.fromkeys(stream for name in names if (stream := stream_of(name)[0])))
    return named or (ONLY,)


def joined_spec(streams: Mapping[str, CacheSpec]) -> CacheSpec:
    """Return the features and layouts of all streams, each under its stream's name and with sizes of its own.

    Args:
        streams: by name, at least one.

    Raises:
        InputError: there are none, or one has a name that is none.
    """
    if not streams:
        raise InputError("streams: there are none; expected at least one")
    for name in streams:
        if not _NAME.fullmatch(name) or name == _MULTI:
            raise InputError(
                f"{name!r:.80} is no name of a stream; expected 1 to 32 small letters, digits, - and _, "
                f"and not {_MULTI!r}"
            )
    arrays, sizes = list[ArraySpec](), dict[str, int]()
    for stream, spec in streams.items():
        sizes |= {in_stream(stream, letter): size for letter, size in spec.sizes.items()}
        for array in spec.arrays:
            if array.role == "bookkeeping":
                continue
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
    arrays = tuple(array for array in spec.arrays if stream_of(array.name)[0] == stream)
    if not arrays:
        raise InputError(f"no stream {stream!r}; there are: {', '.join(stream_names(spec.names())) or 'none'}")
    return CacheSpec(
        sizes={stream_of(letter)[1]: n for letter, n in spec.sizes.items() if letter.startswith(f"{stream}/")},
        arrays=tuple(
            replace(
                array,
                name=stream_of(array.name)[1],
                axes=tuple(stream_of(axis)[1] if isinstance(axis, str) else axis for axis in array.axes),
            )
            for array in arrays
        ),
    )


def with_spaces(spec: CacheSpec, classes: Mapping[str, int], multi: Collection[str] = ()) -> CacheSpec:
    """Return a joined spec that states these label spaces, which are a protocol's, and no others.

    Args:
        spec: of the streams.
        classes: K of each label space by name.
        multi: names of those with several labels a clip.
    """
    stated = {in_stream(_CLASSES, space): count for space, count in classes.items()}
    stated |= {in_stream(_MULTI, space): 1 for space in multi}
    others = {letter: size for letter, size in spec.sizes.items() if stream_of(letter)[0] not in (_CLASSES, _MULTI)}
    return replace(spec, sizes={**stated, **others})


def space_sizes(spec: CacheSpec) -> dict[str, int]:
    """Return K of each label space that a joined spec states, by name."""
    start = in_stream(_CLASSES, "")
    return {letter.removeprefix(start): n for letter, n in spec.sizes.items() if letter.startswith(start)}


def led_by(spec: CacheSpec, space: str | None) -> CacheSpec:
    """Return the spec with this label space as the first of those that it states; None, or an unknown one: as it is."""
    own = in_stream(_CLASSES, space or "")
    return replace(spec, sizes={own: spec.sizes[own], **spec.sizes}) if own in spec.sizes else spec


def multi_spaces(spec: CacheSpec) -> tuple[str, ...]:
    """Return the label spaces with several labels a clip that a joined spec states."""
    start = in_stream(_MULTI, "")
    return tuple(letter.removeprefix(start) for letter in spec.sizes if letter.startswith(start))
