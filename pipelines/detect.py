"""`ifcar detect`: videos to a file of boxes that `ifcar extract --boxes` reads."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ifcar.cache.durable import file_digest, write_atomic, write_atomic_parts
from ifcar.cache.lock import locked
from ifcar.counts import count_of
from ifcar.devices import choose_device
from ifcar.errors import InputError
from ifcar.extract.datasets.box_records import stream_records
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.datasets.detected_boxes import facts_path, read_facts
from ifcar.extract.datasets.strict_json import read_json
from ifcar.pipelines.detection.clips import ChosenClips, clips_of_dataset, clips_of_videos
from ifcar.pipelines.detection.config import DetectConfig
from ifcar.pipelines.detection.detection import ClipDetector, package_versions
from ifcar.pipelines.detection.part_file import PartFile, part_path, write_part
from ifcar.pipelines.progress import Progress

logger = logging.getLogger(__name__)

SIZES = "videoid2size.json"
_FAILURES, _SIZES = "failures", "sizes"  # in NAME.meta.json
_RECORDS, _SIZE = "records", "size"  # of a clip in the part


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectResult:
    """What a detection left behind.

    Args:
        boxes: the file.
        num_clips: clips that were asked for.
        num_computed: clips looked at now.
        num_boxes: boxes in the file.
        num_tracks: tracks in the file.
        num_subjects: those of subjects.
        failures: clip id → why it could not be read.
        notes: what else is to be known, one line each.
    """

    boxes: Path
    num_clips: int
    num_computed: int
    num_boxes: int
    num_tracks: int
    num_subjects: int
    failures: dict[str, str]
    notes: Sequence[str] = field(default_factory=tuple)


def detect(config: DetectConfig, progress: Progress) -> DetectResult:
    """Look for boxes in every clip and write them; interrupted and run again, it goes on.

    Args:
        config: the options.
        progress: told about finished clips.

    Raises:
        InputError, MissingDataError: options or files are not usable, or the file in the way is another.
        LockedError: another process writes the file.
    """
    if config.out.suffix != ".json" or config.out.is_dir():
        raise InputError(f"--out {config.out}: expected a file that ends in .json")
    chosen = _chosen(config, progress)
    clips = list(chosen.clips)[: config.limit]
    detector = ClipDetector(config, device=choose_device(config.device), batch_size=config.batch_size)
    progress.say(f"{config.detector}: weights {detector.detector.description}")
    with locked(config.out):
        part, facts = part_path(config.out), facts_path(config.out)
        if config.overwrite:
            for path in (part, facts, config.out):
                path.unlink(missing_ok=True)
        if config.out.exists() and not part.exists():
            _reopen(config.out, detector, clips)
        num_computed, notes = 0, list[str]()
        if part.exists() or not config.out.exists():
            num_computed, notes = _write(config.out, detector, clips, progress)
        return _result(config.out, detector, clips, num_computed, [*notes, *chosen.notes])


def _chosen(config: DetectConfig, progress: Progress) -> ChosenClips:
    if bool(config.videos) == (config.dataset is not None):
        found = "both videos and --dataset are named" if config.videos else "neither videos nor --dataset are named"
        raise InputError(f"{found}; expected one of them, as `ifcar detect videos/`")
    if config.dataset is not None:
        return clips_of_dataset(config.dataset, config.data_root, progress)
    if config.data_root is not None:
        raise InputError(f"--data-root {config.data_root} would be ignored: it belongs to --dataset")
    return clips_of_videos(config.videos)


def _reopen(out: Path, detector: ClipDetector, clips: Sequence[Clip]) -> None:
    """Make a part of a finished file that lacks clips, or holds none where they could not be read.

    Raises:
        InputError: the file is another one, or was made with other options.
    """
    facts = read_facts(out)
    instead = "name another --out, or replace it with --overwrite"
    if facts is None:
        raise InputError(f"{out}: is there, and `ifcar detect` did not write it; {instead}")
    if facts.boxes_sha256 != file_digest(out)[1]:
        raise InputError(f"{out}: is not as `ifcar detect` wrote it; {instead}")
    now = detector.identity()
    for name, value in now.items():
        before = facts.detector.get(name)
        if before != value:
            raise InputError(f"{out}: was made with another {name}, {before!r:.80} and not {value!r:.80}; {instead}")
    sizes = read_json(facts_path(out)).get(_SIZES, {})
    if any(clip.clip_id not in sizes for clip in clips):
        kept = (
            (clip_id, {_SIZE: sizes.get(clip_id), _RECORDS: records})
            for clip_id, records in stream_records(out, hashlib.sha256())
        )
        write_part(part_path(out), _digest(detector), kept)


def _write(out: Path, detector: ClipDetector, clips: Sequence[Clip], progress: Progress) -> tuple[int, list[str]]:
    """Look at the clips that the part lacks, then assemble the file.

    Returns:
        How many were looked at, and notes on what was not written.
    """
    part = PartFile(part_path(out), _digest(detector))
    failures: dict[str, str] = {}
    try:
        left = [clip for clip in clips if clip.clip_id not in part]
        progress.start(f"looking at {count_of(len(clips), 'clip')}", len(left))
        for clip in left:
            try:
                found = detector.find(clip)
            except (InputError, OSError) as error:
                failures[clip.clip_id] = str(error)
            else:
                part.add(clip.clip_id, {_SIZE: found.size, _RECORDS: detector.records(clip, found)})
                logger.debug("looked at clip %s", clip.clip_id)
            progress.advance()
        progress.finish()
        asked = [clip.clip_id for clip in clips if clip.clip_id in part]
        kept = list(dict.fromkeys([*asked, *part.clip_ids()]))
        write_atomic_parts(out, _assembled(part, kept))
        sizes = {clip_id: part.read(clip_id)[_SIZE] for clip_id in kept}
        facts = detector.facts(file_digest(out)[1]).to_plain()
        versions = package_versions()
        write_atomic(facts_path(out), _json({**facts, "versions": versions, _FAILURES: failures, _SIZES: sizes}))
        notes = _write_sizes(out.parent / SIZES, sizes)
    except BaseException:
        part.close()
        raise
    part.remove()
    return len(left), notes


def _digest(detector: ClipDetector) -> str:
    return hashlib.sha256(json.dumps(detector.identity(), sort_keys=True).encode()).hexdigest()


def _assembled(part: PartFile, clip_ids: Sequence[str]) -> Iterator[bytes]:
    yield b"{"
    for number, clip_id in enumerate(clip_ids):
        records = json.dumps(part.read(clip_id)[_RECORDS], separators=(",", ":"))
        yield f"{',' if number else ''}\n{json.dumps(clip_id)}:{records}".encode()
    yield b"\n}\n"


def _write_sizes(path: Path, sizes: Mapping[str, Any]) -> list[str]:
    """Write the sizes of the clips' frames, beside those of others; returns a note where a file states other ones."""
    there = read_json(path) if path.exists() else {}
    known = there if isinstance(there, dict) else {}
    other = [clip_id for clip_id, size in sizes.items() if known.get(clip_id, size) != size]
    if not isinstance(there, dict) or other:
        first = f", of clip {other[0]} for example" if other else ""
        return [f"{path} is there with other sizes{first}, and stays as it is"]
    write_atomic(path, _json({**there, **sizes}))
    return []


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _result(
    out: Path, detector: ClipDetector, clips: Sequence[Clip], num_computed: int, notes: Sequence[str]
) -> DetectResult:
    """Count what the file holds."""
    num_boxes = num_tracks = num_subjects = 0
    without = []
    asked = {clip.clip_id for clip in clips}
    for clip_id, records in stream_records(out, hashlib.sha256()):
        labels = [label for record in records for label in record["labels"]]
        tracks = {label["track"]: label["subject"] for label in labels}
        num_boxes, num_tracks = num_boxes + len(labels), num_tracks + len(tracks)
        num_subjects += sum(tracks.values())
        if clip_id in asked and not tracks:
            without.append(clip_id)
    failures = read_json(facts_path(out))[_FAILURES]
    more = []
    if without:
        link = detector.config.link()
        count = count_of(len(without), "has", of=f"{len(clips):,} clips")
        more.append(
            f"{count} no box, the first: {without[0]}; tracks begin at "
            f"--new-score {link.new_score:g}, and lower scores find more"
        )
    if num_tracks and not num_subjects:
        why = "heads that tell them from objects see objects alone"
        if not detector.has_subjects:
            why = f"no class is one of {', '.join(detector.config.subjects)}; name some with --subjects"
        more.append(f"no box is of a subject: {why}")
    return DetectResult(
        boxes=out,
        num_clips=len(clips),
        num_computed=num_computed,
        num_boxes=num_boxes,
        num_tracks=num_tracks,
        num_subjects=num_subjects,
        failures={clip.clip_id: failures[clip.clip_id] for clip in clips if clip.clip_id in failures},
        notes=[*more, *notes],
    )
