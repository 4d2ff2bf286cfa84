"""Something-Something v1 and v2 as published, without boxes: lists, classes by line and by number, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.something_something import CLASSES, LISTS, V1, V2, class_of, write_v1, write_v2
from fixtures.weights import random_weights

from ifcar.cache.open import open_cache
from ifcar.cache.protocols import UNKNOWN
from ifcar.cache.schema import Split
from ifcar.errors import IfcarError, MissingDataError
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.progress import Silent

WRITERS: dict[str, Callable[..., Path]] = {V1: write_v1, V2: write_v2}
BOTH = pytest.mark.parametrize("name", WRITERS)


@pytest.mark.slow
@BOTH
def test_every_listed_video_is_a_clip_with_its_class_and_part(name: str, tmp_path: Path) -> None:
    root, out = WRITERS[name](tmp_path / "data"), tmp_path / "c.zarr"
    config = ExtractConfig(
        dataset=name,
        data_root=root,
        out=out,
        backbone="mobilenet_v2",
        weights=random_weights(out, "mobilenet_v2"),
        crop=32,
        workers=0,
    )
    result = extract(config, Silent())
    assert result.num_failed == 0
    empty = "protocol official: 1 of 3 classes has no training clip, the first: 'Dropping something'"
    assert empty in result.notes
    reader = open_cache(out)
    assert reader.clip_ids == [clip_id for ids in LISTS.values() for clip_id in ids]
    assert reader.table("frame_indices")[0].tolist() == list(range(1, 17, 2))
    assert not reader.table("categories").any()
    table = reader.protocol("official")
    assert table.labels.kind == "single" and table.labels.classes == CLASSES
    parts = {"train": Split.TRAIN, "validation": Split.TEST, "test": Split.NONE}
    expected = [
        (parts[part], UNKNOWN if part == "test" else class_of(place))
        for part, ids in LISTS.items()
        for place, _ in enumerate(ids)
    ]
    assert list(zip(table.split.tolist(), table.labels.targets.tolist(), strict=True)) == expected
    assert table.group_names == (("a red cup",) if name == V2 else ())
    reader.close()


@BOTH
def test_videos_that_are_not_there_are_counted_in_one_line(name: str, tmp_path: Path) -> None:
    root = WRITERS[name](tmp_path)
    for clip_id in ("7", "8"):
        next((root / f"20bn-{name}").glob(f"{clip_id}*")).rename(tmp_path / clip_id)
    dataset = DATASETS.get(name)(root)
    dataset.prepare()
    listing = dataset.listing(needs_pixels=True)
    assert [clip.clip_id for clip in listing.clips] == ["41", "100", "12", "9"]
    assert listing.problems == [f"2 of 6 listed videos are not in {root}/20bn-{name}, the first: 7"]


@BOTH
def test_missing_files_are_named_with_what_to_download_and_where_to_put_it(name: str, tmp_path: Path) -> None:
    ending = "csv" if name == V1 else "json"
    with pytest.raises(MissingDataError, match=rf"no {name}-labels\.{ending}; download Something-Something"):
        DATASETS.get(name)(tmp_path).prepare()
    root = WRITERS[name](tmp_path / "lists", pixels=False)
    dataset = DATASETS.get(name)(root)
    dataset.prepare()
    with pytest.raises(MissingDataError, match=rf"20bn-{name}: no pixels; download"):
        dataset.listing(needs_pixels=True)
    with pytest.raises(IfcarError, match="has no boxes, so that nothing is left without pixels; choose a backbone"):
        dataset.listing(needs_pixels=False)
    (root / f"{name}-validation.{ending}").unlink()
    with pytest.raises(MissingDataError, match=rf"no {name}-validation\.{ending}; download"):
        dataset.prepare()


TWICE = json.dumps([{"id": "41", "template": "Showing [something]"}])


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        (
            V1,
            "validation.csv",
            "12;Showing something\n\n13;Showin something\n",
            "line 3: .*no class 'Showin something'",
        ),
        (V1, "validation.csv", "12\n", "line 1: .*no class ''"),
        (V1, "validation.csv", "41;Showing something\n", "line 1: id '41' is empty or listed before"),
        (V1, "test.csv", ";\n", "line 1: id '' is empty"),
        (V1, "labels.csv", "a\na\n", "names the class 'a' twice"),
        (V2, "validation.json", TWICE, "clip '41' is listed in something-something-v2-train.json too"),
        (V2, "validation.json", '[{"id": "5", "template": "No [such]"}]', "clip '5' has class 'No such'"),
        (V2, "test.json", '[{"id": 5}]', "entry 0 has no text 'id'"),
        (V2, "labels.json", '{"a": "1"}', "the class numbers must be 0 … 0"),
    ],
)
def test_broken_list_is_refused_with_its_place(
    name: str, file: str, content: str, message: str, tmp_path: Path
) -> None:
    root = WRITERS[name](tmp_path)
    (root / f"{name}-{file}").write_text(content)
    dataset = DATASETS.get(name)(root)
    with pytest.raises(IfcarError, match=message) as caught:
        dataset.protocols([clip.clip_id for clip in dataset.listing(needs_pixels=True).clips])
    assert str(root) in str(caught.value) and "\n" not in str(caught.value)
