"""The picture of the way of the data in architecture.md, made from the functions along it.

What is said here is which functions are shown and which of them write and read a file. The rest is read from the code:
an arrow stands where one returns a type that a later one takes, as an argument, in the object whose method it is, or
inside a dataclass. `python docs/way_of_the_data.py` writes the picture anew.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Container
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).parent / "architecture.md"
OPENED, CLOSED = "```mermaid\n", "```\n"
CACHE, RUN, TABLE = "caches/NAME.zarr", "runs/NAME", "runs/GRID"
ROOMS = {
    "a data set": ["ifcar.extract.datasets.contract:Dataset.listing", "ifcar.extract.datasets.contract:Dataset.tracks"],
    "extract": [
        "ifcar.extract.views:plan_view",
        "ifcar.extract.decoded_views:ViewDataset.__getitem__",
        "ifcar.extract.extractor:FeatureExtractor.__call__",
        "ifcar.cache.writer:CacheWriter.write_block",
    ],
    "a cache": ["ifcar.cache.open:open_cache", "ifcar.cache.reader:CacheReader.protocol"],
    "train and score": [
        "ifcar.pipelines.feed.examples:read_examples",
        "ifcar.pipelines.feed.batches:BatchReader.batch",
        "ifcar.heads.contract:Head.forward",
        "ifcar.pipelines.labels.kinds:kind_of",
        "ifcar.pipelines.stacks.objectives:losses_of",
        "ifcar.pipelines.scoring.scores:predict",
        "ifcar.pipelines.scoring.scores:measure",
        "ifcar.pipelines.runs.finished:write_results",
    ],
    "compare and show": [
        "ifcar.pipelines.runs.finished:open_run",
        "ifcar.pipelines.comparison.results:summarise",
        "ifcar.pipelines.comparison.store:write_comparison",
        "ifcar.pipelines.comparison.store:read_comparison",
        "ifcar.pipelines.comparison.columns:columns_of",
    ],
}
FILES = {"write_block": CACHE, "write_results": RUN, "write_comparison": TABLE}
READ = {CACHE: "open_cache", RUN: "open_run", TABLE: "read_comparison"}


def picture() -> str:
    """Return the picture as a Mermaid flow chart."""
    lines, names, arrows = ["flowchart TB"], [], []
    given: dict[str, list[int]] = {}  # a type, and the stations that give it
    for room, places in ROOMS.items():
        lines.append(f'    subgraph {room.replace(" ", "_")} ["{room}"]')
        for place in places:
            here = len(names)
            taken, gives = _types(place, given)
            for first in sorted({first for name in taken for first in given.get(name, [])}):
                what = sorted(name for name in taken if first in given.get(name, []))
                arrows.append(f"    s{first} -->|{', '.join(what)}| s{here}")
            for name in gives:
                given.setdefault(name, []).append(here)
            lines.append(f'        s{here}["{place.partition(":")[2]}"]')
            names.append(place.rpartition(":")[2].rpartition(".")[2])
        lines.append("    end")
    for number, (writer, file) in enumerate(FILES.items()):
        arrows.append(f'    s{names.index(writer)} --> f{number}[("{file}")] --> s{names.index(READ[file])}')
    return "\n".join([*lines, *arrows]) + "\n"


def written() -> str:
    """Return the picture as the page has it."""
    return PAGE.read_text().partition(OPENED)[2].partition(CLOSED)[0]


def _types(place: str, known: Container[str]) -> tuple[set[str], set[str]]:
    """Return the types of ifcar that a function takes, with what lies in unknown dataclasses, and those it gives."""
    module, _, path = place.partition(":")
    owner, _, name = path.rpartition(".")
    source = import_module(module)
    holder = getattr(source, owner) if owner else source
    annotations = dict(inspect.unwrap(getattr(holder, name)).__annotations__)
    gives = {inner for found in _named(annotations.pop("return"), source).items() for inner in _listed(*found)}
    held = holder.__init__.__annotations__.values() if owner else ()
    takes = {owner} & set(known)
    ahead = [kind for text in [*held, *annotations.values()] for kind in _named(text, source).items()]
    while ahead:
        found, kind = ahead.pop()
        if found in takes:
            continue
        takes.add(found)
        if found not in known and is_dataclass(kind):
            inside = import_module(kind.__module__)
            ahead += [own for text in kind.__annotations__.values() for own in _named(text, inside).items()]
    return takes, gives


def _listed(name: str, kind: object) -> set[str]:
    """Return a type's name, or those that it lists where it is a mere list of others."""
    fields = list(getattr(kind, "__annotations__", {}).values()) if is_dataclass(kind) else []
    first = re.fullmatch(r"(?:list|Sequence|tuple)\[([A-Z]\w+).*", str(fields[0])) if fields else None
    return {name} if first is None else {name, first[1]}


def _named(annotation: object, source: ModuleType) -> dict[str, object]:
    """Return the types of ifcar that an annotation names."""
    kinds = {name: getattr(source, name, None) for name in re.findall(r"\b[A-Z]\w+", str(annotation))}
    own = {name: kind for name, kind in kinds.items() if str(getattr(kind, "__module__", "")).startswith("ifcar.")}
    return own | {name: kind for name, kind in kinds.items() if name == "RowArrays"}


if __name__ == "__main__":
    page = PAGE.read_text()
    PAGE.write_text(page.replace(OPENED + written(), OPENED + picture()))
