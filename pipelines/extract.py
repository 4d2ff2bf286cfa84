"""`ifcar extract`: videos, boxes and labels to a cache."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.addresses import Address
from ifcar.cache.durable import write_atomic
from ifcar.cache.lock import locked
from ifcar.cache.manifest import ANEW
from ifcar.cache.open import open_cache, protocol_to_name
from ifcar.cache.schema import Status
from ifcar.cache.writer import CacheWriter
from ifcar.counts import count_of
from ifcar.errors import CacheMismatchError, InputError, LockedError
from ifcar.extract.decoded_views import past_end_lines
from ifcar.extract.engine import BlockTask
from ifcar.pipelines.engines.contract import ExtractEngine
from ifcar.pipelines.engines.local import LocalEngine
from ifcar.pipelines.extraction.backbones import backbone_of, check_heard
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.defaults import annotation_table, cache_path
from ifcar.pipelines.extraction.environment import device_name
from ifcar.pipelines.extraction.hours import note_hours
from ifcar.pipelines.extraction.preparation import Preparation, prepare
from ifcar.pipelines.extraction.slots import slot_note
from ifcar.pipelines.progress import Progress, Silent

if TYPE_CHECKING:
    from ifcar.cache.outbox import Outbox


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractResult:
    """What an extraction left behind.

    Args:
        cache: the cache's path.
        num_clips: clips in the cache.
        num_rows: rows in the cache.
        num_computed: rows computed now.
        num_failed: rows whose status is failed.
        num_done: rows whose status is done.
        failures_file: the list of failed rows, when there are any.
        has_boxes: whether some row has a box; True where none could be read.
        has_instances: whether features of instances are stored.
        protocol: one of the cache's protocols, where a run has to name one; None where it need not.
        notes: clips that reach past their source's end, clips left out, files not found and tracks without a slot, one
            line each.
    """

    cache: Path
    num_clips: int
    num_rows: int
    num_computed: int
    num_failed: int
    num_done: int
    failures_file: Path | None
    has_boxes: bool
    has_instances: bool
    protocol: str | None
    notes: Sequence[str] = field(default_factory=tuple)


def extract(config: ExtractConfig, progress: Progress = Silent(), engine: ExtractEngine | None = None) -> ExtractResult:
    """Run stage one: decode, run the backbone, pool instances, write and commit block after block.

    Interrupted at any point and run again with the same options, it goes on where it was.

    Args:
        config: the options.
        progress: told about finished rows.
        engine: where blocks are computed; default: here. Its choice changes no byte of the cache.

    Raises:
        InputError, MissingDataError: options or files are not usable.
        CacheMismatchError: the cache in the way was made with other options.
        LockedError: another process writes the cache.
    """
    check_heard(config, backbone_of(config))
    engine = engine or LocalEngine()
    config = engine.settle(config)
    place = cache_path(config)
    if isinstance(place, Address):
        return _extract_away(place, config, progress, engine)
    return _extract(place, config, progress, engine, None)


def _extract_away(place: Address, config: ExtractConfig, progress: Progress, engine: ExtractEngine) -> ExtractResult:
    """Extract into object storage, block after block through a local folder."""
    if config.overwrite:
        raise InputError(f"--overwrite: {place} is in object storage, where ifcar removes no cache; delete it there")
    # object storage needs a package of its own
    from ifcar.cache.outbox import Outbox

    outbox = Outbox(place)
    try:
        return replace(_extract(outbox.folder, config, progress, engine, outbox), cache=place)
    except (CacheMismatchError, LockedError) as error:
        said = str(error).replace(ANEW, "write to another place (--out), or delete what lies there")
        raise type(error)(said.replace(str(outbox.folder), str(place))) from error
    finally:
        outbox.close()


def _extract(
    path: Path, config: ExtractConfig, progress: Progress, engine: ExtractEngine, outbox: Outbox | None
) -> ExtractResult:
    with locked(path):
        preparation = prepare(config, progress, table=annotation_table(path, config))
        if outbox is not None:
            outbox.receive()
        lost = slot_note(preparation.source, preparation.spec.num_instances)
        writer = _open_writer(path, preparation)
        if outbox is not None:
            outbox.attach(writer)
        tasks = _tasks(writer, preparation.wanted(), retry_failed=config.retry_failed)
        num_rows = sum(len(task.rows) for task in tasks)
        if outbox is not None:
            outbox.restore(writer.stage.manifest, [task.block for task in tasks if task.replaces])
        if num_rows:
            _say_size(path, preparation, num_rows, progress, outbox)
            if lost:
                progress.say(lost)
            progress.start(f"extracting {count_of(len(preparation.source.clips), 'clip')}", num_rows)
            started = time.perf_counter()
            try:
                engine.run(preparation, writer, tasks, progress)
            except KeyboardInterrupt:
                blocks = count_of(writer.num_blocks, "block")
                kept = count_of(writer.num_blocks - len(writer.pending_blocks()), "is", "are", of=blocks)
                place = path if outbox is None else outbox.address
                progress.say(f"{place}: {kept} kept; the same command goes on")
                raise
            progress.finish()
            seconds = time.perf_counter() - started
            note_hours(path, rows=num_rows, seconds=seconds, device=device_name(config.device))
        notes = [*([lost] if lost else []), *preparation.source.notes]
        return _result(path, writer, preparation, num_rows, notes)


def _say_size(path: Path, preparation: Preparation, num_rows: int, progress: Progress, outbox: Outbox | None) -> None:
    """Say how large the rows will be, whether there is room for them, and how much of them a file's boxes fill."""
    row_bytes = preparation.spec.row_bytes(preparation.spec.names())
    size, free = num_rows * row_bytes, shutil.disk_usage(path).free
    place, room = (path, f", {free / 2**20:,.0f} MiB free") if outbox is None else (outbox.address, "")
    line = (
        f"{place}: {count_of(num_rows, 'row')} of {row_bytes / 2**10:,.0f} KiB, together {size / 2**20:,.0f} MiB{room}"
    )
    if left_out := int((~preparation.wanted()).sum()):
        line += f"; {count_of(left_out, 'augmented view')} of clips that no protocol trains on left out"
    proposals, num_slots = preparation.source.proposals, preparation.spec.num_instances
    if proposals is not None:
        line += f"; boxes fill {100 * proposals.filled:.0f} % of {num_slots} slots a frame, the rest is padding"
    progress.say(
        line if outbox is not None or size <= free else f"{line}: they will not fit; make room, or name another --out"
    )


def _tasks(writer: CacheWriter, wanted: NDArray[np.bool_], *, retry_failed: bool) -> list[BlockTask]:
    """Return the blocks that are not committed, then the committed ones with rows that are to be computed after all.

    These are failed rows, where asked for, and augmented views of clips that no protocol trained on until now. The
    failed rows of a block that is written again are tried again with it.
    """
    reader = open_cache(writer.path)
    status = reader.status()
    reader.close()
    tasks = []
    for block in writer.pending_blocks():
        rows = [row for row in writer.rows_of(block) if wanted[row]]
        if rows:
            tasks.append(BlockTask(block=block, rows=rows))
        else:
            nothing = writer.spec.empty_rows(len(writer.rows_of(block)))
            nothing["status"][:] = Status.NOT_WANTED
            writer.write_block(block, nothing, {})
    failed, missing = status == Status.FAILED, wanted & (status == Status.NOT_WANTED)
    for block in sorted({writer.block_of(row) for row in np.flatnonzero(missing | (failed & retry_failed)).tolist()}):
        writer.reopen_block(block)
        rows = [row for row in writer.rows_of(block) if missing[row] or failed[row]]
        tasks.append(BlockTask(block=block, rows=rows, replaces=True))
    return tasks


def _open_writer(path: Path, preparation: Preparation) -> CacheWriter:
    if path.exists() and not (path / "zarr.json").is_file():
        raise InputError(f"{path}: not a cache; name another --out")
    if preparation.config.overwrite and path.exists():
        shutil.rmtree(path)
    clips = preparation.source.clip_table()
    arguments = {
        **preparation.identity(),
        "protocols": preparation.source.protocols,
        "segments": clips.segments,
        "cameras": clips.cameras,
    }
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return CacheWriter.create(path, **arguments)
    return CacheWriter.resume(path, **arguments)


def _result(
    path: Path, writer: CacheWriter, preparation: Preparation, num_computed: int, notes: Sequence[str]
) -> ExtractResult:
    source, reader = preparation.source, open_cache(path)
    short = {source.clips[row // reader.rows_per_clip].clip_id: text for row, text in writer.notes().items()}
    failures = reader.failures()
    failures_file = path.with_suffix(".failures.jsonl")
    if failures:
        lines = [
            json.dumps({"row": f.row, "clip": f.clip_id, "view": f.view, "reason": f.reason}, ensure_ascii=False)
            for f in failures
        ]
        write_atomic(failures_file, ("\n".join(lines) + "\n").encode())
    else:
        failures_file.unlink(missing_ok=True)
    num_clips, num_rows = reader.num_clips, reader.num_rows
    done = reader.status() == Status.DONE
    has_boxes = bool(not done.any() or reader.table("categories")[done].any())
    protocol = protocol_to_name(reader)
    reader.close()
    boxless = [] if has_boxes else ["no clip has a box: a head that reads instances has nothing to go by"]
    return ExtractResult(
        cache=path,
        num_clips=num_clips,
        num_rows=num_rows,
        num_computed=num_computed,
        num_failed=len(failures),
        num_done=int(done.sum()),
        failures_file=failures_file if failures else None,
        has_boxes=has_boxes,
        has_instances=preparation.spec.pooled_size > 0,
        protocol=protocol,
        notes=[*boxless, *past_end_lines(short), *notes],
    )
