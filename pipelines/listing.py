"""`ifcar list` and `ifcar cache info`: what there is, as columns and rows.

Numbers are numbers and what there is not is None: the command shows them as text, or writes them as JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ifcar.cache.clips import CAMERAS, SEGMENTS
from ifcar.cache.open import open_cache
from ifcar.cache.schema import Split, Status
from ifcar.cache.single import FILE_SUFFIXES
from ifcar.data_files import entries
from ifcar.errors import InputError, MissingDataError
from ifcar.pipelines.configs import to_plain
from ifcar.pipelines.feed.labelled import read_labelled
from ifcar.pipelines.folders import cache_paths, folder
from ifcar.pipelines.labels.contract import MEASURES
from ifcar.pipelines.runs.config import RunConfig, task_name
from ifcar.pipelines.runs.finished import finished_runs
from ifcar.pipelines.runs.query import RunQuery, differing_options
from ifcar.shell_words import command

if TYPE_CHECKING:
    from ifcar.extract.backbones.spec import BackboneSpec

Rows = tuple[list[str], list[list[Any]]]
ALL_RUNS = RunQuery()
SHOWN_CROP = 224  # of the views that backbones are listed for
COSTS = ["frames", "giga multiply-adds", "instance bytes", "grid bytes"]  # of a view


def list_datasets() -> Rows:
    """Return the registered datasets."""
    from ifcar.extract.datasets.catalog import DATASETS

    rows = [[n, DATASETS.get(n).summary, str(folder("data") / DATASETS.get(n).default_root)] for n in DATASETS.names()]
    return ["name", "what", "default folder"], rows


def list_backbones(weights: str | None = None) -> Rows:
    """Return the registered backbones at every spatial stride.

    Args:
        weights: a folder or file; lists those backbones alone that read from it what network it belongs to, with what
            a view costs: operations, and bytes of N = 4 instances of 3×3 bins and of the map.

    Raises:
        InputError: none of them does.
    """
    from ifcar.extract.backbones.base import BACKBONES
    from ifcar.extract.backbones.catalog import names

    shown = [name for name in names() if weights is None or BACKBONES.get(name).reads_facts(weights)]
    if not shown:
        raise InputError(f"--weights {weights}: no backbone finds there what network it belongs to; leave it out")
    rows = [row for name in shown for row in _backbone_rows(name, weights)]
    columns = ["name", "reads", "spatial stride", "channels", "steps", f"cells of {SHOWN_CROP}²", "weights", "layer"]
    return [*columns, *(COSTS if weights else [])], rows


def _backbone_rows(name: str, weights: str | None) -> list[list[Any]]:
    from ifcar.extract.backbones.base import BACKBONES
    from ifcar.extract.backbones.catalog import resolve_backbone

    family = BACKBONES.get(name)
    no_costs = [None] * len(COSTS) if weights else []
    if family.variants:
        return [[f"{name}:{family.variants}", *[None] * 5, "named by the variant", None, *no_costs]]
    rows = []
    try:
        strides = resolve_backbone(name, num_frames=family.shown_frames, crop_size=SHOWN_CROP, weights=weights).strides
        for stride in strides or (None,):
            spec = resolve_backbone(
                name, num_frames=family.shown_frames, crop_size=SHOWN_CROP, spatial_stride=stride, weights=weights
            )
            per_step = spec.num_frames // spec.num_steps
            cells = {key: f"{height}×{width}" for key, (height, width) in spec.maps.items()}
            rows.append(
                [
                    name,
                    spec.reads,
                    stride or None,
                    spec.channels or None,
                    f"T/{per_step}" if per_step > 1 else "T",
                    ", ".join(f"{key} {size}" if len(cells) > 1 else size for key, size in cells.items()) or None,
                    ", ".join(spec.published) or None,
                    spec.layer or None,
                    *(_costs(spec) if weights else []),
                ]
            )
    except MissingDataError:
        return [[name, *[None] * 6, "its size is read from --weights FOLDER"]]
    except InputError as error:  # of one that takes neither so many frames nor this crop
        return [[name, *[None] * 6, str(error), *no_costs]]
    return rows


def _costs(spec: BackboneSpec) -> list[Any]:
    from ifcar.extract.backbones.cost import grid_bytes, instance_bytes, multiply_adds

    operations = float(f"{multiply_adds(spec) / 1e9:.3g}") if spec.reads == "pixels" else None
    return [spec.num_frames, operations, instance_bytes(spec), grid_bytes(spec)]


def list_heads() -> Rows:
    """Return the registered heads."""
    from ifcar.heads.catalog import HEADS

    rows = []
    for name in HEADS.names():
        head = HEADS.get(name)
        rows.append([name, head.source, head.formula, ", ".join(head.presets), ", ".join(head.auxiliary) or None])
    return ["name", "source", "formula", "presets", "auxiliary losses"], rows


def list_caches() -> Rows:
    """Return the caches in the caches folder, exported ones, lists of parts and joins too."""
    files = [p for p in entries(folder("caches")) if p.is_file() and p.name.endswith(FILE_SUFFIXES)]
    rows = []
    for path in sorted([*cache_paths(), *files]):
        reader = open_cache(path)
        done = int((reader.status() == Status.DONE).sum())
        joined = reader.stream_identities().values() or [reader.identity]
        backbone = ", ".join(dict.fromkeys(str(identity["backbone"]["name"]) for identity in joined))
        clips = reader.clips.arrays()
        segments = len(set(clips[SEGMENTS])) if SEGMENTS in clips else None
        cameras = ", ".join(sorted(filter(None, set(clips.get(CAMERAS, ()))))) or None
        sizes = [reader.num_clips, segments, cameras, reader.num_rows, done]
        rows.append([str(path), str(backbone), *sizes, reader.fingerprint[:12]])
        reader.close()
    return ["cache", "backbone", "clips", "segments", "cameras", "rows", "rows done", "fingerprint"], rows


def list_runs(query: RunQuery = ALL_RUNS) -> Rows:
    """Return the finished runs in the runs folder, oldest first or as asked, with the options in which they differ."""
    runs = [run for run in finished_runs() if query.names(run)]
    said = differing_options([to_plain(run.config) for run in runs])
    rows = []
    for run, options in zip(runs, said, strict=True):
        test = run.metric("test")
        seed = run.config.seed if isinstance(run.config, RunConfig) else None
        found = {} if test is None else test.measures()
        scores = [100 * found[key] if key in found else None for key in MEASURES]
        made = datetime.fromtimestamp((run.path / "metrics.json").stat().st_mtime)
        own = [str(run.path), run.config.head, task_name(run.config), seed, test and test.n, *scores]
        rows.append([*own, f"{made:%Y-%m-%d %H:%M}", options or None])
    columns = ["run", "head", "protocol", "seed", "test n", *MEASURES.values(), "made", "differs in"]
    return columns, query.chosen(columns, rows)


def list_grids() -> Rows:
    """Return the grid files that come with ifcar."""
    from ifcar.pipelines.grid.config import read_grid, shipped_grids

    rows = []
    for name in shipped_grids():
        grid = read_grid(Path(name))
        cache = "; ".join(command(*words).strip("`") for words in grid.cache_commands())
        rows.append([name, grid.title, grid.dataset or "any", len(grid.systems), len(grid.seeds), cache])
    return ["name", "what", "data", "systems", "seeds", "its cache"], rows


def list_detectors() -> Rows:
    """Return the registered detectors."""
    from ifcar.extract.detectors.catalog import DETECTORS

    rows: list[list[Any]] = []
    for name in DETECTORS.names():
        family = DETECTORS.get(name)
        variants = f"; VARIANT: {', '.join(family.variants)}" if family.variants else ""
        weights = "--weights FILE or FOLDER" if family.published is None else f"published: {family.published.address}"
        shown = f"{name}:VARIANT" if variants else name
        rows.append([shown, family.summary + variants, "phrases" if family.reads_phrases else None, weights])
    return ["name", "what", "reads", "weights"], rows


def list_published() -> Rows:
    """Return the papers' figures, and ours where the grid that reproduces them ran on the same data."""
    from ifcar.pipelines.published.cards import cards, comparisons_here

    columns = ["row", "source", "published", "ours", "boxes", "protocol", "grid", "line", "differs in", "known traps"]
    rows: list[list[Any]] = []
    for card in cards(comparisons_here()):
        table = card.table
        traps = [*([card.row.note] if card.row.note else []), *table.traps]
        made: list[Any] = [table.grid or None, (card.row.line or None) if table.grid else None, card.settings or None]
        said = [card.name, card.source, card.published, card.ours, table.boxes, card.protocol or table.protocol]
        rows.append([*said, *made, traps])
    return columns, rows


LISTINGS: dict[str, Callable[[], Rows]] = {
    "datasets": list_datasets,
    "backbones": list_backbones,
    "detectors": list_detectors,
    "heads": list_heads,
    "caches": list_caches,
    "runs": list_runs,
    "grids": list_grids,
    "published": list_published,
}


def describe_cache(path: Path) -> dict[str, Any]:
    """Return what `ifcar cache info` shows: arrays, protocols and failures as rows, single facts as lines and typed."""
    reader = open_cache(path)
    status = reader.status()
    arrays = [
        [a.name, [reader.num_rows, *reader.spec.shape(a.name)], a.dtype, reader.array_bytes(a.name) / 2**20, a.role]
        for a in reader.spec.arrays
    ]
    protocols = []
    for name in reader.protocol_names():
        table = reader.protocol(name)
        for space in table.spaces:
            own = table.only(space.name)
            counts = [len(read_labelled(own, split, reader.clip_ids).names) for split in (Split.TRAIN, Split.TEST)]
            groups = [len(table.group_names) or None, table.group_kind or None]
            protocols.append([name, space.name, space.over, len(space.classes), *counts, *groups])
    states = ", ".join(f"{int((status == s).sum())} {s.name.lower().replace('_', ' ')}" for s in Status)
    count = reader.manifest.num_augmented_views
    augmented = f" and {count} augmented" if count else ""
    facts = [
        f"rows: {states} ({reader.num_clips} clips × {reader.num_views} views{augmented})",
        f"fingerprint: {reader.fingerprint}",
    ]
    clips = reader.clips.arrays()
    if SEGMENTS in clips:
        facts.append(f"segments: {len(set(clips[SEGMENTS])):,} of {reader.num_clips:,} clips")
    if CAMERAS in clips:
        seen = sorted(Counter(clips[CAMERAS]).items())
        facts.append("cameras: " + ", ".join(f"{name or 'not named'} {count:,}" for name, count in seen))
    typed = {
        "cache": path,
        "fingerprint": reader.fingerprint,
        "clips": reader.num_clips,
        "views": reader.num_views,
        "augmented_views": count,
        "rows": {s.name.lower(): int((status == s).sum()) for s in Status},
        "segments": len(set(clips[SEGMENTS])) if SEGMENTS in clips else None,
        "cameras": dict(sorted(Counter(clips[CAMERAS]).items())) if CAMERAS in clips else None,
        "identity": dict(reader.identity),
        "made_with": dict(reader.environment),
    }
    facts += [f"{key}: {value}" for key, value in reader.identity.items()]
    if reader.environment:  # a join was made by nothing that computes
        facts.append("made with: " + ", ".join(f"{k} {v}" for k, v in reader.environment.items()))
    failures = [[f.row, f.clip_id, f.view, f.reason] for f in reader.failures()]
    reader.close()
    return {"arrays": arrays, "protocols": protocols, "facts": facts, "failures": failures, "typed": typed}
