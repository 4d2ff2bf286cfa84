"""EPIC-KITCHENS' lists: spans in seconds whatever the source's rate, both splits, bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.epic_kitchens import HEADER, LABELS, ROWS, VERBS, write_epic
from fixtures.videos import write_frames
from fixtures.weights import random_weights

from ifcar.cache.open import open_cache
from ifcar.cache.schema import Split
from ifcar.errors import IfcarError, MissingDataError
from ifcar.extract.datasets.epic_kitchens import EpicKitchens
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.progress import Silent


@pytest.mark.slow
def test_a_clip_is_the_seconds_of_an_action_and_parts_are_persons(tmp_path: Path) -> None:
    out = tmp_path / "c.zarr"
    config = ExtractConfig(
        dataset="epic-kitchens",
        data_root=write_epic(tmp_path / "d"),
        out=out,
        backbone="mobilenet_v2",
        weights=random_weights(out, "mobilenet_v2"),
        frames=4,
        crop=32,
        workers=0,
    )
    result = extract(config, Silent())
    assert (result.num_clips, result.num_failed) == (4, 0)
    assert "protocol orn-24: 1 of 3 classes has no training clip, the first: 'put'" in result.notes
    reader = open_cache(out)
    assert reader.clip_ids == ["0", "4", "11", "12"]
    # middles of four parts of 24 … 71 and 48 … 95 at 48 a second, 0 … 59 at 60, and 7 or 8 … 82 at 30
    shown = reader.table("frame_indices").tolist()
    assert shown[:3] == [[30, 42, 54, 66], [54, 66, 78, 90], [7, 22, 37, 52]]
    assert [abs(frame - middle) <= 1 for frame, middle in zip(shown[3], (16.9, 35.6, 54.4, 73.1), strict=True)] == [
        True
    ] * 4
    for name, of_25 in (("orn", Split.TRAIN), ("orn-24", Split.TEST)):
        table = reader.protocol(name)
        assert table.split.tolist() == [Split.TRAIN, Split.TRAIN, of_25, Split.TEST]
        assert table.labels.classes == ("take", "put", "open") and table.labels.targets.tolist() == [2, 0, 1, 0]
        assert [table.group_names[g] for g in table.groups] == ["P01", "P01", "P25", "P26"]
    reader.close()


def test_missing_files_are_named_with_what_to_download_and_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no EPIC_train_action_labels\.csv; download the annotations"):
        EpicKitchens(tmp_path).prepare()
    dataset = EpicKitchens(write_epic(tmp_path / "d", pixels=False))
    dataset.prepare()
    with pytest.raises(MissingDataError, match=r"no pixels; download the training videos"):
        dataset.listing(needs_pixels=True)
    with pytest.raises(IfcarError, match="choose a backbone"):
        dataset.listing(needs_pixels=False)
    write_frames(tmp_path / "d" / "frames" / "P01" / "P01_01", 3, "frame_{:010d}.jpg")
    listing = dataset.listing(needs_pixels=True)
    assert [clip.clip_id for clip in listing.clips] == ["0", "4"]
    assert listing.problems == ["2 of 4 actions are left out, as 2 videos are not there, the first: videos/P25_02.MP4"]


def _row(**changed: str) -> str:
    fields = {
        "uid": "0",
        "participant_id": "P01",
        "video_id": "P01_01",
        "start_timestamp": "00:00:01.00",
        "stop_timestamp": "00:00:02.00",
        "verb_class": "0",
        **changed,
    }
    return ",".join(fields) + "\n" + ",".join(fields.values()) + "\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            LABELS,
            _row(stop_timestamp="00:00:00.99"),
            "line 2: the action runs from 00:00:01.00 to 00:00:00.99; expected",
        ),
        (LABELS, _row(stop_timestamp="00:00:01.00"), "line 2: the action runs from"),
        (LABELS, _row(start_timestamp="1.5"), "line 2: start_timestamp is '1.5'; expected a time as 00:01:02.34"),
        (LABELS, _row(stop_timestamp="00:61:00.00"), "stop_timestamp is '00:61:00.00'"),
        (LABELS, _row(verb_class="3"), r"verb_class is 3; EPIC_verb_classes\.csv has 0 to 2"),
        (LABELS, _row(verb_class="-1"), "verb_class is '-1'; expected a whole number"),
        (LABELS, _row(participant_id="1"), "participant '1' of video 'P01_01'"),
        (LABELS, _row(video_id="P02_01"), "participant 'P01' of video 'P02_01'"),
        (LABELS, _row(uid=""), "uid is ''; expected each action once"),
        (LABELS, "uid,verb_class\n", "line 1: the header lacks the column participant_id"),
        (LABELS, HEADER + "\n", "holds no action"),
        (LABELS, "\n".join([HEADER, ROWS[0], ROWS[0]]), "line 3: uid is '0'; expected each action once"),
        (VERBS, "verb_id,class_key\n0,a\n2,b\n", "2 verbs whose numbers are not 0 … 1"),
        (VERBS, "verb_id,class_key\n0,a\n0,b\n", "line 3: verb_id 0 is listed twice"),
    ],
)
def test_broken_list_is_refused_with_its_place(name: str, content: str, message: str, tmp_path: Path) -> None:
    path = write_epic(tmp_path, pixels=False) / name
    path.write_text(content)
    with pytest.raises(IfcarError, match=message) as caught:
        EpicKitchens(tmp_path).listing(needs_pixels=True)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
