"""`ifcar data check`: every clip is shown to every check, and what they find becomes one page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ifcar.cache.durable import write_atomic
from ifcar.extract.backbones.spec import Reads
from ifcar.extract.datasets.contract import Erratum
from ifcar.extract.decode_ahead import decode_ahead
from ifcar.pipelines.data_check.cards import ClipCard, make_card
from ifcar.pipelines.data_check.catalog import CHECKS
from ifcar.pipelines.data_check.config import DataCheckConfig
from ifcar.pipelines.data_check.contract import Severity
from ifcar.pipelines.data_check.examine import Examiner
from ifcar.pipelines.data_check.page import Checked, render_check
from ifcar.pipelines.data_check.tally import Found, Tally, worst_clips
from ifcar.pipelines.engines.local import engine_options
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.preparation import view_policy
from ifcar.pipelines.extraction.slots import slot_note
from ifcar.pipelines.extraction.sources import read_source
from ifcar.pipelines.progress import Progress
from ifcar.pipelines.report.page import check_replaceable

_SMALL_CROP = 32  # pixels are decoded and let go, so that their size does not matter


@dataclass(frozen=True, kw_only=True, slots=True)
class DataCheckResult:
    """What a check of a data set found.

    Args:
        page: the HTML file.
        num_clips: clips that are listed.
        num_examined: clips that were looked at.
        found: what each check found, the worst first.
        clip_ids: of the clips that findings name, by number.
        notes: what the reader says: of the data as a whole, of clips left out and files not found.
        errata: what is known of the data set as it is published.
    """

    page: Path
    num_clips: int
    num_examined: int
    found: Sequence[Found]
    clip_ids: dict[int, str]
    notes: Sequence[str]
    errata: Sequence[Erratum]

    @property
    def num_wrong(self) -> int:
        """Findings by which extraction would store something wrong; a clip counts once for each check."""
        return sum(own.counts.get(Severity.WRONG, 0) for own in self.found)


def check_data(config: ExtractConfig, own: DataCheckConfig, progress: Progress) -> DataCheckResult:
    """Look at every clip as `ifcar extract` would read it, and write the page.

    Args:
        config: what is read, see `OF_EXTRACTION`.
        own: the further options.
        progress: is told about clips that were looked at and drawn.

    Raises:
        InputError, MissingDataError: options or files are not usable.
    """
    page = own.page(config.dataset)
    check_replaceable(page, "ifcar data check")
    config = replace(config, crop=_SMALL_CROP)
    source = read_source(config, progress, needs_pixels=not own.annotations_only)
    kinds = [CHECKS.get(name) for name in CHECKS.names()]
    checks = {kind.name: kind(source) for kind in kinds if not (own.annotations_only and kind.needs_pixels)}
    reads: Reads = "nothing" if own.annotations_only else "pixels"
    examiner = Examiner(source, view_policy(config), reads, checks)
    numbers = _numbers(len(source.clips), own)
    tally = Tally(checks)
    progress.start(f"checking {config.dataset}", len(numbers))
    for examined in decode_ahead(examiner, [numbers], engine_options(config, os.cpu_count() or 1)):
        tally.add(examined)
        progress.advance(1)
    progress.finish()
    found = tally.found()
    worst, drawn = _cards(examiner, found, numbers, own, progress)
    lost = slot_note(source, config.instances)
    notes = [*([lost] if lost else []), *source.notes]
    content = render_check(
        Checked(
            dataset=source.dataset,
            source=source,
            tally=tally,
            found=found,
            worst=worst,
            drawn=drawn,
            notes=notes,
            seed=own.seed,
            with_pixels=not own.annotations_only,
        )
    )
    write_atomic(page, content.encode())
    named = sorted({number for check in found for number, _ in check.examples})
    return DataCheckResult(
        page=page,
        num_clips=len(source.clips),
        num_examined=tally.num_clips,
        found=found,
        clip_ids={number: source.clips[number].clip_id for number in named},
        notes=notes,
        errata=source.dataset.errata,
    )


def _numbers(num_clips: int, own: DataCheckConfig) -> list[int]:
    """Return the clips to look at, ascending."""
    num_clips = num_clips if own.limit is None else min(num_clips, own.limit)
    if own.sample is None or own.sample >= num_clips:
        return list(range(num_clips))
    chosen = np.random.default_rng(own.seed).choice(num_clips, own.sample, replace=False)
    return [int(number) for number in np.sort(chosen)]


def _cards(
    examiner: Examiner, found: Sequence[Found], numbers: Sequence[int], own: DataCheckConfig, progress: Progress
) -> tuple[list[ClipCard], list[ClipCard]]:
    """Return the cards of the worst clips, and of others drawn at random."""
    worst = worst_clips(found, own.drawn)
    others = sorted(set(numbers) - set(worst))
    drawn = sorted(np.random.default_rng((own.seed, 1)).permutation(others)[: own.drawn].tolist())
    progress.start("drawing clips", len(worst) + len(drawn))
    cards = []
    for number in [*worst, *drawn]:
        cards.append(make_card(examiner, number, found))
        progress.advance(1)
    progress.finish()
    return cards[: len(worst)], cards[len(worst) :]
