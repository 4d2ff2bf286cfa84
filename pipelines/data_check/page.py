"""The page of a data check, in the report's looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Split
from ifcar.counts import count_of
from ifcar.extract.datasets.contract import Dataset
from ifcar.pipelines.comparison.columns import Column
from ifcar.pipelines.data_check.cards import ClipCard
from ifcar.pipelines.data_check.contract import Severity
from ifcar.pipelines.data_check.tally import Found, Kind, Tally
from ifcar.pipelines.extraction.sources import Source
from ifcar.pipelines.labels.kinds import kind_of
from ifcar.pipelines.report.page import render_page
from ifcar.pipelines.report.tables import Table

HERE = Path(__file__).parent
_Protocol = tuple[ProtocolTable, LabelSpace, int]  # with its clips without a label
MOST_NOTES = 100
MOST_KINDS = 20
WORDS: Mapping[Severity, str] = {
    Severity.WRONG: "silently wrong",
    Severity.FAILS: "fails",
    Severity.NOTE: "note",
}


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a page shows.

    Args:
        dataset: the data set.
        source: the same, read.
        tally: counts over the clips that were looked at.
        found: what each check found, the worst first.
        worst: cards of the worst clips.
        drawn: cards of clips drawn at random.
        notes: what the reader says.
        seed: of what was drawn at random.
        with_pixels: whether sources were opened.
    """

    dataset: Dataset
    source: Source
    tally: Tally
    found: Sequence[Found]
    worst: Sequence[ClipCard]
    drawn: Sequence[ClipCard]
    notes: Sequence[str]
    seed: int
    with_pixels: bool


def render_check(checked: Checked) -> str:
    """Return the page."""
    wrong = [own for own in checked.found if own.severity == Severity.WRONG and own.num_clips]
    return render_page(
        HERE,
        {
            "name": checked.dataset.name,
            "root": str(checked.dataset.root),
            "verdict": verdict(checked.found),
            "is_wrong": bool(wrong),
            "facts": _facts(checked),
            "summary": _summary(checked),
            "found": [(own, _examples(own, checked.source)) for own in checked.found if own.num_clips],
            "words": WORDS,
            "num_clips": checked.tally.num_clips,
            "counts": counted,
            "notes": checked.notes[:MOST_NOTES],
            "notes_left": max(0, len(checked.notes) - MOST_NOTES),
            "tables": [table for table in (_protocols(checked), _kinds(checked), _tracks(checked)) if table.rows],
            "galleries": [
                ("worst", "The worst clips", "Of every check its worst clips in turn.", checked.worst),
                ("random", "Clips drawn at random", f"Drawn with seed {checked.seed}.", checked.drawn),
            ],
            "errata": checked.dataset.errata,
        },
    )


def verdict(found: Sequence[Found]) -> str:
    """Return one sentence about what was found."""
    wrong = sum(bool(own.counts.get(Severity.WRONG)) for own in found)
    if wrong:
        return f"{count_of(wrong, 'check finds', 'checks find')} what extraction would get wrong without a word"
    if others := sum(bool(own.num_clips) for own in found):
        return f"Nothing would be silently wrong; {count_of(others, 'check has')} something to say"
    return "Nothing was found"


def counted(own: Found) -> str:
    """Return clips by severity, in words."""
    return ", ".join(f"{count:,} {WORDS[severity]}" for severity, count in own.counts.items())


def _facts(checked: Checked) -> list[tuple[str, str]]:
    source, tally = checked.source, checked.tally
    looked_at = f"{tally.num_clips:,}" if tally.num_clips < len(source.clips) else "all"
    facts = [("clips", f"{len(source.clips):,}"), ("looked at", looked_at)]
    if checked.with_pixels:
        facts.append(("sources", f"{len({clip.source for clip in source.clips}):,}"))
        facts.append(("their frames", f"{tally.num_frames:,}"))
    counts_in = {"annotations count": checked.dataset.annotation_fps}
    if source.proposals is not None:
        counts_in["boxes of the file count"] = source.tracks_fps
    facts += [
        ("annotated frames", f"{tally.num_annotated:,}"),
        ("boxes", f"{tally.num_boxes:,}"),
        *((what, "frames of the source" if fps is None else f"{fps:g} a second") for what, fps in counts_in.items()),
        ("pixels", "read" if checked.with_pixels else "not read"),
    ]
    return facts


def _summary(checked: Checked) -> Table:
    num_clips = checked.tally.num_clips
    columns: list[Column[Found]] = [
        Column("looked for", lambda own: own.title),
        Column("found", lambda own: WORDS[own.severity] if own.num_clips else "–"),
        Column("clips", lambda own: f"{own.num_clips:,}", lambda own: own.num_clips),
        Column("%", lambda own: f"{100 * own.num_clips / num_clips:.1f}", lambda own: own.num_clips / num_clips),
    ]
    return Table(
        name="checks",
        caption=f"What was looked for in {count_of(num_clips, 'clip')}",
        columns=columns,
        rows=checked.found,
    )


def _examples(own: Found, source: Source) -> Table:
    columns: list[Column[Any]] = [
        Column("clip", lambda row: source.clips[row[0]].clip_id),
        Column("what", lambda row: row[1].text),
        Column("severity", lambda row: WORDS[row[1].severity]),
    ]
    left_out = own.num_clips - len(own.examples)
    text = f"The worst clips, {left_out:,} more are not listed" if left_out else "What was found, the worst first"
    return Table(name=own.check, caption=text, columns=columns, rows=own.examples)


def _protocols(checked: Checked) -> Table:
    rows = [(p, space, _unlabelled(p, space)) for p in checked.source.protocols for space in p.spaces]
    columns: list[Column[_Protocol]] = [
        Column("protocol", lambda row: row[0].name),
        Column("labels", lambda row: row[1].name),
        Column("classes", lambda row: str(len(row[1].classes)), lambda row: len(row[1].classes)),
        *(_part(split) for split in (Split.TRAIN, Split.TEST, Split.NONE)),
        Column("without a label", lambda row: f"{row[2]:,}", lambda row: row[2]),
    ]
    text = "Clips of each protocol; without a label: clips of its parts that have none, or none of whose instances has"
    return Table(name="protocols", caption=text, columns=columns, rows=rows)


def _part(split: Split) -> Column[_Protocol]:
    title = {Split.TRAIN: "train", Split.TEST: "test", Split.NONE: "in neither"}[split]
    return Column(title, lambda row: f"{len(row[0].clips(split)):,}", lambda row: len(row[0].clips(split)))


def _unlabelled(protocol: ProtocolTable, space: LabelSpace) -> int:
    targets = space.targets
    if space.over == "instance":  # a clip has a label where one of its slots has
        targets = targets.reshape(-1, *targets.shape[2:])
    labelled = kind_of(space).shown(targets, len(space.classes)).any(axis=1).reshape(len(protocol.split), -1)
    return int((~labelled.any(axis=1) & (protocol.split != Split.NONE)).sum())


def _kinds(checked: Checked) -> Table:
    rows = checked.tally.kinds.most_common(MOST_KINDS) if checked.with_pixels else []
    columns: list[Column[tuple[Kind | None, int]]] = [
        Column("pictures", lambda row: _size(row[0])),
        Column("frames a second", lambda row: _rate(row[0], 1)),
        Column("stated", lambda row: _rate(row[0], 2)),
        Column("clips", lambda row: f"{row[1]:,}", lambda row: row[1]),
    ]
    text = "Clips by the size and rate of their source; the frames' own times tell the rate, and a folder has none"
    return Table(name="kinds", caption=text, columns=columns, rows=rows)


def _size(kind: Kind | None) -> str:
    if kind is None:
        return "others"
    return "cannot be read" if kind[0] is None else f"{kind[0][0]} × {kind[0][1]}"


def _rate(kind: Kind | None, place: int) -> str:
    rate = None if kind is None else kind[place]
    return "–" if rate is None else f"{rate:g}"


def _tracks(checked: Checked) -> Table:
    columns: list[Column[tuple[int, int]]] = [
        Column("instances", lambda row: str(row[0])),
        Column("clips", lambda row: f"{row[1]:,}", lambda row: row[1]),
    ]
    rows = sorted(checked.tally.tracks.items())
    return Table(name="instances", caption="Clips by their number of instances", columns=columns, rows=rows)
