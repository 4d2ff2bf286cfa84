"""`ifcar report`: one self-contained page of tables, figures and clips, and every figure as files."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ifcar.cache.durable import write_atomic
from ifcar.config_fields import path_of
from ifcar.errors import IfcarError, InputError, MissingDataError
from ifcar.pipelines.pictures.fonts import codes_note
from ifcar.pipelines.progress import Progress, Silent
from ifcar.pipelines.report.answer import answers_of
from ifcar.pipelines.report.chapter import Chapter, open_chapters
from ifcar.pipelines.report.config import ReportConfig
from ifcar.pipelines.report.contexts import StreamCaches, find_join
from ifcar.pipelines.report.drawing import drawing_style
from ifcar.pipelines.report.figure_folder import FigureFolder
from ifcar.pipelines.report.gather import gather
from ifcar.pipelines.report.page import ChapterPage, Section, check_replaceable, render
from ifcar.pipelines.report.records import PICTURES, PictureFolder
from ifcar.pipelines.report.sections import chapter_sections
from ifcar.pipelines.report.views import CachedViews, open_views, reads_pixels, stream_views
from ifcar.pipelines.runs.finished import open_run

PAGE, FIGURES, FILES = "index.html", "figures", "files.json"


@dataclass(frozen=True, kw_only=True)
class ReportResult:
    """What a report left behind.

    Args:
        page: the HTML file.
        size_bytes: of the page.
        figures: (title, files, rows of numbers) of every figure.
        pairs: (comparison's title, A, B) of every chapter; empty text where there is none.
        notes: what is missing and why.
    """

    page: Path
    size_bytes: int
    figures: Sequence[tuple[str, Sequence[Path], int]]
    pairs: Sequence[tuple[str, str, str]]
    notes: Sequence[str]


def report(
    folders: Sequence[Path | str] | Path | str = (),
    progress: Progress = Silent(),
    options: ReportConfig = ReportConfig(),
) -> ReportResult:
    """Write OUT/index.html, OUT/figures/ and OUT/clips/.

    Args:
        folders: one or several of runs and comparisons; none takes all comparisons in the runs folder, else all runs.
        progress: is told what is drawn.
        options: what the figures show, and where everything lies.

    Raises:
        MissingDataError, InputError: a folder, a name or a number is not usable.
    """
    _check(options)
    out, baseline, protocol = options.out, options.baseline, options.protocol
    opened = functools.cache(open_run)  # the chapters show the runs that the comparisons were made of
    named = folders if isinstance(folders, Sequence) and not isinstance(folders, str) else [folders]
    gathered = gather([path_of(folder, "folder") for folder in named], baseline=baseline, opened=opened)
    chapters = open_chapters(gathered, opened, compare=options.compare, baseline=baseline, protocol=protocol)
    figures, pictures = _fresh(out / FIGURES), _fresh(out / PICTURES)
    pages = []
    written: list[tuple[str, Sequence[Path], int]] = []
    clips: list[str] = []
    notes: list[str] = []
    undrawn: set[str] = set()
    for place, chapter in enumerate(chapters):
        prefix = "" if len(chapters) == 1 else f"{place + 1}-{_file_name(chapter.comparison.name)}-"
        progress.say(f"report: {chapter.comparison.title or chapter.comparison.name}")
        paths = [options.cache] if options.cache is not None else chapter.caches()
        views = _views(chapter, paths, options.data_root)
        streams = find_join(paths, chapter.fingerprint(), options.data_root)
        pictures_of = _stream_pictures(chapter, streams) if isinstance(views, str) else views
        with drawing_style():
            folder = FigureFolder(path=figures, prefix=prefix, written=written, undrawn=undrawn)
            beside = PictureFolder(path=pictures, prefix=prefix, most=options.num_pictures, written=clips)
            sections = chapter_sections(
                chapter, views, pictures_of or views, streams, folder, options.num_clips, beside, progress
            )
        at_hand = None if isinstance(views, str) else views.reader.path
        pages.append(_page(f"c{place + 1}", chapter, at_hand if streams is None else streams.path, sections))
        notes += chapter.notes
        if isinstance(pictures_of, CachedViews):
            notes += [s.gallery.without_pictures for s in sections if s.gallery and s.gallery.without_pictures]
            pictures_of.reader.close()
        else:
            notes.append(f"no pictures and no numbers of instances: {views}")
    notes += [codes_note(undrawn)] if undrawn else []
    content = render(pages).encode()
    write_atomic(out / PAGE, content)
    _own(figures, [p.name for _, paths, _ in written for p in paths])
    _own(pictures, clips)
    return ReportResult(
        page=out / PAGE,
        size_bytes=len(content),
        figures=written,
        pairs=[(c.comparison.title or c.comparison.name, *_names(c)) for c in chapters],
        notes=list(dict.fromkeys(notes)),
    )


def _check(options: ReportConfig) -> None:
    if options.out.exists() and not options.out.is_dir():
        raise InputError(f"{options.out}: is a file; name a folder with --out")
    check_replaceable(options.out / PAGE, "ifcar report")
    root = options.data_root
    if root is not None and not root.is_dir():
        raise MissingDataError(f"--data-root {root}: no such folder; leave it out to draw boxes without frames")


def _fresh(folder: Path) -> Path:
    """Return a folder of the report, without the files that an earlier report says it wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        old = json.loads((folder / FILES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return folder
    for name in old if isinstance(old, list) else ():
        if isinstance(name, str) and Path(name).name == name:
            (folder / name).unlink(missing_ok=True)
    return folder


def _own(folder: Path, names: Sequence[str]) -> None:
    """Note which files the report wrote into a folder; one without any goes."""
    if names:
        write_atomic(folder / FILES, json.dumps(names, indent=1).encode())
        return
    (folder / FILES).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:40] or "comparison"


def _views(chapter: Chapter, paths: Sequence[Path], data_root: Path | None) -> CachedViews | str:
    if chapter.a is None:
        return "no run is at hand"
    return open_views(paths, chapter.fingerprint(), chapter.a.clip_ids.tolist(), data_root)


def _stream_pictures(chapter: Chapter, streams: StreamCaches | None) -> CachedViews | None:
    """Return the views of the stream whose answers are shown, or of the first that sees; None where none does."""
    if streams is None or chapter.a is None:
        return None
    run = chapter.a.runs()[0]
    names = list(dict.fromkeys([chapter.rows()[0].task.partition("/")[0], *run.data().streams]))
    for name in names:
        try:
            if name and reads_pixels(run.path, run.data().of_stream(name)):
                return stream_views(streams.open(name), name, chapter.a.clip_ids.tolist(), streams.data_root)
        except IfcarError as error:
            if isinstance(error, InputError) and streams.data_root is not None:
                raise
    return None


def _page(ident: str, chapter: Chapter, cache: Path | None, sections: Sequence[Section]) -> ChapterPage:
    comparison, data = chapter.comparison, chapter.data
    facts = [("data", comparison.dataset), ("protocol of the figures", chapter.protocol)]
    facts.append(("test clips", f"{chapter.rows()[0].n:,}"))
    if data is not None:
        backbone = dict(data.identity).get("backbone", {})
        facts.append(("classes", str(len(data.classes))))
        if chapter.a is not None and len(chapter.a.replicates[0]) == 1:  # pooled protocols share training clips
            facts.append(("training clips", f"{data.num_train:,}"))
        facts.append(("backbone", f"{backbone.get('name', 'unknown')}, weights {backbone.get('weights', 'unknown')}"))
    if chapter.fingerprint():
        facts.append(("cache", f"{cache or 'not at hand'}, fingerprint {chapter.fingerprint()[:12]}"))
    return ChapterPage(
        ident=ident,
        title=comparison.title or comparison.name,
        facts=facts,
        answers=answers_of(comparison),
        pair=[(letter, system.name) for letter, system in chapter.pair()],
        notes=chapter.notes,
        sections=sections,
    )


def _names(chapter: Chapter) -> tuple[str, str]:
    return chapter.a.name if chapter.a else "", chapter.b.name if chapter.b else ""
