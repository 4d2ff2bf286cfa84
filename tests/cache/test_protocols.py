"""Label spaces of a protocol through a cache and through its export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cache_cases import create_writer, fill, protocols, resume_writer

from ifcar.cache.export import export_hdf5
from ifcar.cache.open import open_cache
from ifcar.cache.protocols import LabelSpace, ProtocolTable, protocol_arrays, protocol_attributes
from ifcar.cache.verify import verify_cache
from ifcar.errors import CacheMismatchError, InputError

CLIPS, SLOTS = 20, 2


def spaces() -> tuple[LabelSpace, ...]:
    """Return one space of every form: over clips and instances, single and multi, all defaults changed once."""
    rng = np.random.default_rng(0)
    slots = np.array([[f"clip {c}, person {n}" if n <= c % SLOTS else "" for n in range(SLOTS)] for c in range(CLIPS)])
    return (
        LabelSpace(
            name="activity", kind="single", classes=("a", "b"), targets=rng.integers(-1, 2, CLIPS).astype(np.int16)
        ),
        LabelSpace(
            name="atomic",
            kind="multi",
            classes=("x", "y", "z"),
            targets=rng.integers(-1, 2, (CLIPS, 3)).astype(np.int8),
            unlabelled="negative",
        ),
        LabelSpace(
            name="personal",
            kind="single",
            over="instance",
            classes=("sit", "stand"),
            targets=np.where(slots == "", -1, rng.integers(0, 2, (CLIPS, SLOTS))).astype(np.int16),
            instance_ids=slots.astype(object),
        ),
    )


def several() -> ProtocolTable:
    return replace(protocols(CLIPS)[0], name="several", spaces=spaces())


def same(a: ProtocolTable, b: ProtocolTable) -> bool:
    ours, theirs = protocol_arrays(a), protocol_arrays(b)
    return protocol_attributes(a) == protocol_attributes(b) and all(
        ours[name].tolist() == theirs[name].tolist() for name in {*ours, *theirs}
    )


def test_every_form_of_label_space_comes_back_from_a_cache_and_from_its_export(tmp_path: Path) -> None:
    tables = [*protocols(CLIPS), several()]
    fill(create_writer(tmp_path / "c.zarr", CLIPS, protocols=tables))
    assert verify_cache(tmp_path / "c.zarr").ok
    export_hdf5(tmp_path / "c.zarr", tmp_path / "c.h5")
    for path in (tmp_path / "c.zarr", tmp_path / "c.h5"):
        reader = open_cache(path)
        for table in tables:
            stored = reader.protocol(table.name)
            assert same(stored, table)
            assert [space.name for space in stored.spaces] == [space.name for space in table.spaces]
        reader.close()


def test_a_plain_protocol_is_stored_as_it_has_always_been() -> None:
    attributes = protocol_attributes(protocols(CLIPS)[0])
    assert attributes.keys() == {"label_kind", "classes", "group_names", "group_kind"}
    assert protocol_arrays(protocols(CLIPS)[0]).keys() == {"split", "targets", "groups"}


def test_a_space_is_chosen_by_name_and_the_first_without_one() -> None:
    assert several().only("atomic").labels.classes == ("x", "y", "z")
    assert several().only(None).labels.name == "activity"
    with pytest.raises(InputError, match=r"no label space 'atomc'.*atomic.*Known: activity, atomic, personal"):
        several().only("atomc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Bad name"}, "label spaces are named"),
        ({"name": "atomic"}, "label spaces are named"),
        ({"targets": np.zeros(CLIPS, np.int64)}, "targets of activity is int64"),
        ({"targets": np.full(CLIPS, 2, np.int16)}, "lie in 2…2, expected -1…1"),
        ({"over": "instance"}, "instance ids belong to instances"),
        (
            {
                "over": "instance",
                "targets": np.zeros((CLIPS, 3), np.int16),
                "instance_ids": np.full((CLIPS, 3), "", object),
            },
            "activity has labels of 3 slots; a row has 2",
        ),
        (
            {
                "over": "instance",
                "targets": np.zeros((CLIPS, 1), np.int16),
                "instance_ids": np.full((CLIPS, 1), "a", object),
            },
            "activity names an instance twice",
        ),
    ],
)
def test_unusable_label_spaces_are_refused_with_the_protocols_name(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    first, *others = spaces()
    table = replace(several(), spaces=(replace(first, **change), *others))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"'several'.*{message}"):
        create_writer(tmp_path / "c.zarr", CLIPS, protocols=[table])


SEGMENTS = [f"moment {clip // 2}" if clip < 10 else "" for clip in range(CLIPS)]
CAMERAS = ["ego" if clip % 2 else "third" for clip in range(CLIPS)]


def by_moment() -> ProtocolTable:
    """Return a protocol that has every segment whole."""
    table = protocols(CLIPS)[0]
    moments = np.arange(CLIPS) // 2
    return replace(table, split=(moments % 3).astype(np.uint8), groups=(moments % 2).astype(np.int32))


def test_segments_and_cameras_come_back_from_a_cache_and_from_its_export(tmp_path: Path) -> None:
    fill(create_writer(tmp_path / "c.zarr", CLIPS, protocols=[by_moment()], segments=SEGMENTS, cameras=CAMERAS))
    assert verify_cache(tmp_path / "c.zarr").ok
    export_hdf5(tmp_path / "c.zarr", tmp_path / "c.h5")
    for path in (tmp_path / "c.zarr", tmp_path / "c.h5"):
        reader = open_cache(path)
        own = [segment or clip for segment, clip in zip(SEGMENTS, reader.clip_ids, strict=True)]
        assert (reader.clips.segments, reader.clips.cameras) == (own, CAMERAS)
        assert reader.clips.segment_numbers().tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, *range(5, 15)]
        reader.close()


def test_clips_without_segments_and_cameras_are_their_own_and_nothing_is_stored_of_them(tmp_path: Path) -> None:
    fill(create_writer(tmp_path / "c.zarr", CLIPS))
    reader = open_cache(tmp_path / "c.zarr")
    assert reader.clips.segments == reader.clip_ids and set(reader.clips.cameras) == {""}
    reader.close()
    assert [path.name for path in (tmp_path / "c.zarr" / "clips").iterdir() if path.is_dir()] == ["ids"]


@pytest.mark.parametrize(("part", "what"), [("split", "part"), ("groups", "group")])
def test_protocol_that_divides_a_segment_is_refused(tmp_path: Path, part: str, what: str) -> None:
    table = replace(by_moment(), split=np.ones(CLIPS, np.uint8))
    getattr(table, part)[5] = 2 if part == "split" else -1
    with pytest.raises(InputError, match=f"'clip-0004' and 'clip-0005' of the segment 'moment 2' .* same {what}"):
        create_writer(tmp_path / "c.zarr", CLIPS, protocols=[table], segments=SEGMENTS)


def test_going_on_with_other_segments_is_refused(tmp_path: Path) -> None:
    create_writer(tmp_path / "c.zarr", CLIPS, protocols=[by_moment()], segments=SEGMENTS, cameras=CAMERAS)
    resume_writer(tmp_path / "c.zarr", CLIPS, protocols=[by_moment()], segments=SEGMENTS, cameras=CAMERAS)
    with pytest.raises(CacheMismatchError, match="clip 'clip-0000' is of the segment 'moment 0' in the cache"):
        resume_writer(tmp_path / "c.zarr", CLIPS, protocols=[by_moment()], cameras=CAMERAS)
    with pytest.raises(InputError, match="19 cameras of 20 clips"):
        resume_writer(tmp_path / "c.zarr", CLIPS, protocols=[by_moment()], segments=SEGMENTS, cameras=CAMERAS[1:])
