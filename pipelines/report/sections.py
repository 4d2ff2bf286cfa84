"""What a chapter of the page says, section by section."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError
from ifcar.pipelines.comparison.formats import numbers
from ifcar.pipelines.diagnosis.table import seen_sentence
from ifcar.pipelines.progress import Progress
from ifcar.pipelines.published.cards import table_cards
from ifcar.pipelines.published.tables import published_table, table_of_grid
from ifcar.pipelines.report.attribute_figures import FEWEST_CLIPS, draw_attribute, draw_company, make_attribute
from ifcar.pipelines.report.chapter import Chapter
from ifcar.pipelines.report.contexts import StreamCaches
from ifcar.pipelines.report.diagnosis_figures import diagnoses_of, draw_class_changes, draw_diagnosis
from ifcar.pipelines.report.figure_folder import FigureFolder
from ifcar.pipelines.report.gallery import Gallery, make_gallery
from ifcar.pipelines.report.insights import activity_drawings, graph_drawings, relation_drawings
from ifcar.pipelines.report.page import Section, ShownFigure
from ifcar.pipelines.report.pair_figures import (
    class_gains,
    confusion,
    draw_confusion,
    draw_gains,
    most_confused,
)
from ifcar.pipelines.report.records import PictureFolder
from ifcar.pipelines.report.streams import stream_parts
from ifcar.pipelines.report.system_figures import FEWEST_WEIGHTS, draw_accuracies, draw_weights, weight_curves
from ifcar.pipelines.report.systems import mean_probabilities
from ifcar.pipelines.report.tables import (
    cards_table,
    diagnosis_table,
    errors_table,
    gains_table,
    results_table,
    runs_table,
)
from ifcar.pipelines.report.training_figures import draw_training
from ifcar.pipelines.report.view_figures import draw_views, view_curves
from ifcar.pipelines.report.views import CachedViews

NO_RUNS = "Left out: no run of this table is at hand, so there are no predictions to look at."


def chapter_sections(
    chapter: Chapter,
    views: CachedViews | str,
    pictures: CachedViews | str,
    streams: StreamCaches | None,
    figures: FigureFolder,
    num_clips: int,
    beside: PictureFolder,
    progress: Progress,
) -> list[Section]:
    """Draw everything about a comparison, in the order of the page: what answers the question comes first.

    Pictures are those of the clips: `views`, or of a join one stream's.
    """
    probabilities = [mean_probabilities(system) for _, system in chapter.pair()]
    sections = [
        _results(chapter, figures),
        *_published(chapter),
        _gains(chapter, figures),
        _clips(chapter, probabilities, pictures, num_clips, beside, progress),
        _weights(chapter, figures),
        *_views(chapter, views, figures),
        _attributes(chapter, views, figures),
        _confusion(chapter, probabilities, figures),
        *_insights(chapter, views, figures),
        *_streams(chapter, streams, figures),
        *_diagnoses(chapter, figures),
        _training(chapter, figures),
    ]
    if chapter.systems:
        sections.append(Section(name="runs", title="Runs", tables=[runs_table(chapter)], folded=True))
    return sections


def _results(chapter: Chapter, figures: FigureFolder) -> Section:
    drawing = draw_accuracies(chapter)
    text, num_rows = numbers(chapter.comparison), len(chapter.comparison.rows)
    figures.save_numbers("results", "Results, the whole table", text, num_rows)
    return Section(
        name="results",
        title="Results",
        notes=chapter.comparison.notes,
        figures=[figures.save(drawing)],
        tables=[results_table(chapter.comparison)],
    )


def _published(chapter: Chapter) -> list[Section]:
    """Return the paper's figures beside ours, where the table reproduces a paper's."""
    comparison = chapter.comparison
    table = (
        published_table(comparison.published_table) if comparison.published_table else table_of_grid(comparison.name)
    )
    if table is None:
        return []
    said = [f"Boxes: {table.boxes}", f"protocol: {table.protocol}", *(f"known trap: {trap}" for trap in table.traps)]
    cards = cards_table(table_cards(table, [comparison]))
    return [Section(name="published", title="Published figures", text=f"{'; '.join(said)}.", tables=[cards])]


def _weights(chapter: Chapter, figures: FigureFolder) -> Section:
    curves = enumerate(weight_curves(chapter))
    shown = [figures.save(draw_weights(chapter, curve, _numbered("lambda", place))) for place, curve in curves]
    text = "" if shown else f"Left out: no {FEWEST_WEIGHTS} systems of the table differ in the weight λ only."
    return Section(name="lambda", title="Weight λ", text=text, figures=shown)


def _views(chapter: Chapter, views: CachedViews | str, figures: FigureFolder) -> list[Section]:
    """Return the section on views where systems differ in those alone; a table seldom is about that."""
    curves = enumerate(view_curves(chapter, views))
    shown = [figures.save(draw_views(chapter, curve, _numbered("views", place))) for place, curve in curves]
    return [Section(name="views", title="Views of a clip", figures=shown)] if shown else []


def _numbered(name: str, place: int) -> str:
    """Return the name of the files of one of several figures, from 0."""
    return name if place == 0 else f"{name}-{place + 1}"


def _gains(chapter: Chapter, figures: FigureFolder) -> Section:
    title = "Gains by class"
    if chapter.a is None or chapter.b is None or chapter.data is None:
        text = NO_RUNS if chapter.a is None else "Left out: there is one system only, and nothing to compare it with."
        return Section(name="gains", title=title, text=text)
    gains = class_gains(chapter.a, chapter.b, chapter.data.classes)
    drawings = [draw_gains(chapter, gains)]
    if not chapter.a.kind.exclusive:
        drawings.append(draw_company(chapter, gains, chapter.a.labels(len(chapter.data.classes))))
    measure = chapter.a.kind.class_measure[1].capitalize()
    shown = [figures.save(drawing) for drawing in drawings]
    return Section(name="gains", title=title, figures=shown, tables=[gains_table(gains, measure)])


def _confusion(chapter: Chapter, probabilities: Sequence[NDArray[np.float64]], figures: FigureFolder) -> Section:
    title = "Confusion between classes"
    if chapter.a is None or chapter.data is None:
        return Section(name="confusion", title=title, text=NO_RUNS)
    if not chapter.a.kind.exclusive:
        text = "Left out: a clip shows several classes, so that none of them is taken for another."
        return Section(name="confusion", title=title, text=text)
    counts = [confusion(chapter.a.targets, p) for p in probabilities]
    shown = most_confused(counts)
    return Section(
        name="confusion",
        title=title,
        figures=[
            figures.save(draw_confusion(chapter, letter, system, own, shown))
            for (letter, system), own in zip(chapter.pair(), counts, strict=True)
        ],
        tables=[errors_table(counts, chapter.data.classes)],
    )


def _attributes(chapter: Chapter, views: CachedViews | str, figures: FigureFolder) -> Section:
    title = "Accuracy by number of instances, activities and duration"
    name = "instances"
    if chapter.a is None or chapter.data is None:
        return Section(name=name, title=title, text=NO_RUNS)
    clip_ids, found = chapter.a.clip_ids.tolist(), []
    if not chapter.a.kind.exclusive:
        counts = chapter.a.labels(len(chapter.data.classes)).sum(axis=1)
        axis, meaning = "activities in the clip", "clips with so many labels"
        found.append(make_attribute("activities", "number of activities", axis, meaning, counts))
    text = ""
    if isinstance(views, str):
        text = f"Left out: the number of instances stands in the cache, which cannot be used: {views}."
    elif not any(clip_id in views.rows for clip_id in clip_ids):
        text = "Left out: the cache has no view of the test clips."
    else:
        found.append(
            make_attribute(
                "instances",
                "number of instances",
                "instances in the clip's cached view",
                "clips with so many instances (hands, persons and objects that fill a slot in at least one sampled "
                "frame; the cache keeps at most as many as it has slots)",
                views.num_instances(clip_ids),
            )
        )
        found.append(
            make_attribute(
                "frames",
                "duration",
                "frames from the first sampled one to the last",
                "clips whose view spans so many frames of the video",
                views.num_frames(clip_ids),
                least_ratio=1.2,
            )
        )
    shown = [figures.save(draw_attribute(chapter, attribute)) for attribute in found if attribute is not None]
    if not shown and not text:
        text = (
            "Left out: all test clips have as many instances and last as long, or too few differ: a group has at least "
            f"{FEWEST_CLIPS}."
        )
    return Section(name=name, title=title, text=text, figures=shown)


def _training(chapter: Chapter, figures: FigureFolder) -> Section:
    shown = [figures.save(drawing) for drawing in draw_training(chapter)]
    text = NO_RUNS if chapter.a is None else "Left out: no run has a history.jsonl; ensembles are not trained."
    return Section(name="training", title="Training", text="" if shown else text, figures=shown)


def _insights(chapter: Chapter, views: CachedViews | str, figures: FigureFolder) -> list[Section]:
    """Return what trained heads look at, a section for each kind of head that the table has and that can show it."""
    if isinstance(views, str) or chapter.a is None or chapter.data is None:
        return []
    sections = []
    for make in (activity_drawings, graph_drawings, relation_drawings):
        title, drawings = make(chapter, views, chapter.data.classes)
        if drawings:
            shown = [figures.save(drawing) for drawing in drawings]
            sections.append(Section(name=title.partition(":")[0].lower(), title=title, figures=shown))
    return sections


def _streams(chapter: Chapter, streams: StreamCaches | None, figures: FigureFolder) -> list[Section]:
    """Return the section on streams where the runs were trained from a join."""
    if streams is None or chapter.a is None:
        return []
    parts = stream_parts(chapter, streams)
    shown = [figures.save(drawing) for drawing in parts.drawings]
    title = "Streams: what each says by itself, and where it looks"
    for table in parts.tables:
        figures.save_numbers(table.name, f"{title}, {table.name}", table.numbers(), len(table.rows))
    return [Section(name="streams", title=title, text=parts.text, figures=shown, tables=parts.tables)]


def _diagnoses(chapter: Chapter, figures: FigureFolder) -> list[Section]:
    """Return what the systems that `ifcar diagnose` was run on go by; nothing where there is none."""
    title = "Shortcuts: what the heads go by"
    try:
        found = diagnoses_of(chapter)
    except InputError as error:
        return [Section(name="shortcuts", title=title, text=f"Left out: {error}.")]
    if not found:
        return []
    shown, by_class, tables, said = list[ShownFigure](), list[ShownFigure](), [], []
    for place, (system, diagnosis) in enumerate(found):
        shown.append(figures.save(draw_diagnosis(system, diagnosis, _numbered("shortcuts", place))))
        if (drawing := draw_class_changes(system, diagnosis, _numbered("shortcuts-classes", place))) is not None:
            by_class.append(figures.save(drawing))
        tables.append(diagnosis_table(system, diagnosis, _numbered("shortcuts", place)))
        said += [f"{system}: {line}" for line in (seen_sentence(diagnosis), *diagnosis.notes) if line]
    figures_of_both = [*shown, *by_class]
    return [Section(name="shortcuts", title=title, notes=said, figures=figures_of_both, tables=tables, folded=True)]


def _clips(
    chapter: Chapter,
    probabilities: Sequence[NDArray[np.float64]],
    views: CachedViews | str,
    num_clips: int,
    beside: PictureFolder,
    progress: Progress,
) -> Section:
    if chapter.a is None:
        return Section(name="clips", title="Clips", text=NO_RUNS)
    if num_clips == 0:
        return Section(name="clips", title="Clips", text="Left out: --clips 0.")
    gallery = make_gallery(chapter, probabilities, views, num_clips, beside, progress)
    text = _how_chosen(chapter, gallery)
    if not isinstance(views, str) and views.stream:
        text += f" Frames are those of the stream {views.stream}, by its first camera."
    return Section(name="clips", title="Clips", text=text, gallery=gallery)


def _how_chosen(chapter: Chapter, gallery: Gallery) -> str:
    assert chapter.a is not None
    parts = [
        f"{shown} of {total} where {clause}"
        for clause, (shown, total) in zip(gallery.outcomes.values(), gallery.counts, strict=True)
    ]
    seeds = " and ".join(f"{letter}'s over {len(system.seeds)}" for letter, system in chapter.pair())
    total = sum(total for _, total in gallery.counts)
    return (
        f"All {total:,} test clips. The first {len(gallery.cards)} are chosen by rule and not by eye: the same number "
        "of each outcome, or all where there are fewer, at even distances from the outcome's clips in the order of "
        f"class and id: {', '.join(parts)}. Beside each clip stand the most probable classes of each system; "
        f"probabilities are means over seeds ({seeds}), and right means that {chapter.a.kind.right_means}."
    )
