"""Something-Something v2 (Goyal et al. 2017, second release): 174 actions with everyday objects; the official lists.

something-something-v2-labels.json       {"Moving something up": "76", …}
something-something-v2-train.json, …-validation.json
                                         [{"id", "template": "Moving [something] up", "placeholders": […], …}, …]
something-something-v2-test.json         [{"id"}, …]; need not be there
20bn-something-something-v2/ID.webm      or frames at 12 a second, 20bn-something-something-v2/ID/000001.jpg

With boxes, the same videos are data set something-else.
"""

from __future__ import annotations

from collections.abc import Sequence

from ifcar.cache.protocols import ProtocolTable
from ifcar.errors import InputError
from ifcar.extract.datasets.contract import register_dataset
from ifcar.extract.datasets.something_something import PROTOCOL, SomethingSomething
from ifcar.extract.datasets.splits import ProtocolFiles, read_entries, read_protocol

_NAME = "something-something-v2-{}.json"
FILES = ProtocolFiles(
    name=PROTOCOL,
    labels=(_NAME.format("labels"),),
    train=(_NAME.format("train"),),
    test=(_NAME.format("validation"),),
)


@register_dataset
class SomethingSomethingV2(SomethingSomething):
    """Videos or frames, and the official lists."""

    name = "something-something-v2"
    summary = "Something-Something v2, official lists (174 actions, no boxes)"
    default_root = "something-something-v2"
    pixels = "20bn-something-something-v2"
    lists = (*FILES.labels, *FILES.train, *FILES.test)
    test_list = _NAME.format("test")
    download = (
        "download Something-Something v2 and put its lists there as something-something-v2-labels.json, -train.json "
        "and -validation.json, and its videos as 20bn-something-something-v2/ID.webm"
    )

    def listed(self) -> Sequence[str]:
        """Read the ids of all lists."""
        ids: dict[str, str] = {}
        for name in (*FILES.train, *FILES.test, self.test_list):
            path = self.root / name
            for entry in read_entries(path) if path.is_file() else ():
                if entry["id"] in ids:
                    also = "twice" if ids[entry["id"]] == name else f"in {ids[entry['id']]} too"
                    raise InputError(f"{path}: clip {entry['id']!r:.60} is listed {also}; expected each video once")
                ids[entry["id"]] = name
        return list(ids)

    def protocols(self, clip_ids: Sequence[str]) -> tuple[list[ProtocolTable], list[str]]:
        """Return `official`: trained on the train list, tested on the validation list; groups are objects."""
        notes: list[str] = []
        table = read_protocol(self.root, FILES, clip_ids, notes)
        return [] if table is None else [table], notes
