"""Something-Something v1 (Goyal et al. 2017): 174 actions with everyday objects; the official lists.

something-something-v1-labels.csv                      a class a line, 174, in the order of their numbers
something-something-v1-train.csv, …-validation.csv     ID;class; the class may hold commas
something-something-v1-test.csv                        ID; need not be there
20bn-something-something-v1/ID/00001.jpg               12 frames a second
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.schema import Split
from ifcar.errors import InputError, nearest
from ifcar.extract.datasets.contract import Erratum, register_dataset
from ifcar.extract.datasets.label_tables import incomplete, protocol_table, single_labels
from ifcar.extract.datasets.something_something import PROTOCOL, SomethingSomething
from ifcar.extract.datasets.text_rows import class_names, text_rows

LABELS = "something-something-v1-labels.csv"
PARTS = {"something-something-v1-train.csv": Split.TRAIN, "something-something-v1-validation.csv": Split.TEST}


@register_dataset
class SomethingSomethingV1(SomethingSomething):
    """Frames and the official lists."""

    name = "something-something-v1"
    summary = "Something-Something v1, official lists (174 actions, no boxes)"
    default_root = "something-something-v1"
    pixels = "20bn-something-something-v1"
    lists = (LABELS, *PARTS)
    test_list = "something-something-v1-test.csv"
    errata = (
        Erratum(
            "The lists have 174 classes, where Baradel et al. 2018 speak of 157.",
            source="something-something-v1-labels.csv",
        ),
    )
    download = (
        "download Something-Something v1 (20BN) and put its something-something-v1-*.csv there, and its frames as "
        "20bn-something-something-v1/ID/00001.jpg"
    )

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._classes: list[str] = []
        self._labels: dict[str, int] = {}
        self._split: dict[str, Split] = {}

    def listed(self) -> Sequence[str]:
        """Read all lists."""
        self._classes = class_names(self.root / LABELS, hashlib.sha256())
        self._labels, self._split = {}, {}
        numbers = {name: number for number, name in enumerate(self._classes)}
        parts = {**PARTS, **({self.test_list: Split.NONE} if (self.root / self.test_list).is_file() else {})}
        for name, part in parts.items():
            for where, row in text_rows(self.root / name, hashlib.sha256(), "rows as ID;class"):
                clip_id, _, label = (text.strip() for text in row.partition(";"))
                if not clip_id or clip_id in self._split:
                    raise InputError(f"{where}: id {clip_id!r:.60} is empty or listed before; expected each video once")
                if part != Split.NONE and label not in numbers:
                    raise InputError(f"{where}: {LABELS} has no class {label!r:.80}{nearest(label, numbers)}")
                self._split[clip_id] = part
                if part != Split.NONE:
                    self._labels[clip_id] = numbers[label]
        return list(self._split)

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Return `official`: trained on the train list, tested on the validation list."""
        space = single_labels(self._classes, clip_ids, self._labels)
        table = protocol_table(PROTOCOL, [space], clip_ids, self._split)
        return [table], incomplete(table, self._split, clip_ids)
