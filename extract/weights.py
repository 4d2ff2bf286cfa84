"""Filling a backbone with weights: from a file or folder, from where they are published, or random."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ifcar.errors import InputError, MissingDataError
from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.catalog import get_backbone
from ifcar.extract.backbones.downloads import download, sha256_file
from ifcar.extract.backbones.spec import BackboneSpec, PublishedWeights
from ifcar.extract.backbones.state_files import SUFFIXES, faults_of_state, not_finite
from ifcar.text_files import read_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsRecord:
    """Which weights a backbone holds.

    Args:
        description: for people: the file, the address, or that they are random.
        identity: for the fingerprint: SHA-256 of the file as hexadecimal text, or "random:SEED".
    """

    description: str
    identity: str


def load_weights(backbone: Backbone, source: str, weights_dir: Path = Path("weights")) -> WeightsRecord:
    """Fill every parameter and buffer of `backbone`.

    Args:
        backbone: from `build_backbone`.
        source: "random:SEED", "published" for the default ones of the backbone's published weights, the tag of others,
            or a file (.safetensors, .pyth, .pt, .pth) or a folder of .safetensors; a file that is called as a tag is
            named with its folder, ./TAG.
        weights_dir: folder for downloads; `weights/` under the current directory unless given.

    Returns:
        What was loaded.

    Raises:
        MissingDataError: the file is not there.
        InputError: the file cannot be read or does not fit, its SHA-256 is another than the recorded one, the
            download failed, or there are no published weights.
    """
    spec = backbone.spec
    if source.startswith("random:"):
        seed_text = source.removeprefix("random:")
        if not seed_text.isdecimal():
            raise InputError(f"weights {source!r}: the seed is no number; expected random:SEED, as random:0")
        logger.warning("%s has random weights (seed %s): its features are untrained", spec.name, seed_text)
        backbone.initialise(int(seed_text))
        return WeightsRecord(description=f"random, seed {int(seed_text)}", identity=f"random:{int(seed_text)}")
    path, description = find_weights(spec, source, weights_dir)
    load_file_into(backbone, path, known=tuple(spec.published))
    return WeightsRecord(description=description, identity=digest_of(path))


def find_weights(spec: BackboneSpec, source: str, weights_dir: Path = Path("weights")) -> tuple[Path, str]:
    """Return where a backbone's weights lie, fetched where they are published ones, and what they are, for people.

    Args:
        spec: the facts of the backbone.
        source: as `load_weights` takes it, but random ones.
        weights_dir: folder for downloads.

    Raises:
        UnavailableError: published weights that cannot be fetched.
        InputError: there are no published ones, or the fetched file has another SHA-256 than the recorded one.
    """
    if source == "published" and not spec.published:
        raise InputError(f"backbone {spec.name!r} has no published weights; use --weights FILE")
    tag = next(iter(spec.published)) if source == "published" else source
    if tag not in spec.published:
        path = Path(source).expanduser()
        return path, f"{path}{licence_of(path)}"
    entry = spec.published[tag]
    path = (entry.fetch or download)(entry, weights_dir)
    return path, f"published as {tag}, {entry.address}; licence: {entry.license}"


def licence_of(folder: Path) -> str:
    """Return what a downloaded folder says of its licence, for people; "" of what is no folder.

    A model card states it in the front matter of its README.md; else the first line of a licence file counts.
    """
    if not folder.is_dir():
        return ""
    card = folder / "README.md"
    front = card.read_text("utf-8", "replace").split("---\n") if card.is_file() else []
    try:
        facts = yaml.safe_load(front[1]) if len(front) > 2 and not front[0].strip() else None
    except yaml.YAMLError:
        facts = None
    if isinstance(facts, dict) and (stated := facts.get("license_name") or facts.get("license")):
        return f"; licence: {stated}"
    for path in sorted(folder.glob("LICEN[CS]E*")):
        lines = path.read_text("utf-8", "replace").split("\n")
        return f"; licence: {' '.join(next(filter(str.strip, lines), 'nothing').split())} ({path.name})"
    return "; licence: the folder states none; look where you had it from"


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder: over its files' relative names and SHA-256, hidden files apart."""
    if path.is_file():
        return sha256_file(path)
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    lines = [f"{sha256_file(files[name])}  {name}\n" for name in sorted(files) if not f"/{name}".count("/.")]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def kept_weights(digest: str, weights_dir: Path) -> Path | None:
    """Return the downloaded file whose recorded SHA-256 this is, or None."""
    for record in sorted(weights_dir.glob("*.sha256")):
        path = record.with_suffix("")
        if path.is_file() and read_text(record).split()[:1] == [digest]:
            return path
    return None


def tags_of(digest: str, published: Mapping[str, PublishedWeights]) -> list[str]:
    """Return the tags of published weights that may have this SHA-256; of some a part of it is known, or nothing."""
    return [tag for tag, entry in published.items() if entry.sha256 is None or digest.startswith(entry.sha256)]


def is_file_name(source: str, backbone: str) -> bool:
    """Return whether weights of a backbone name a file or folder, and not published or random ones."""
    tags = ("published", *get_backbone(backbone).published(backbone))
    return source not in tags and not source.startswith("random:")


def check_there(path: Path, known: Sequence[str]) -> None:
    """Raise MissingDataError, which names the tags of published weights, where no file or folder of weights is."""
    if not path.exists():
        tags = "".join(f'"{tag}", ' for tag in ("published", *known) if known)
        raise MissingDataError(
            f'{path}: no such weights file; expected a {", ".join(SUFFIXES)} file, a folder, {tags}or "random:SEED"'
        )


def load_file_into(backbone: Backbone, path: Path, known: Sequence[str] = ()) -> None:
    """Copy a state dict from a file or folder into `backbone`; every key must have its counterpart, of the same shape.

    The state dict may lie under one of the backbone's `wrappers`, its keys may all start with "module.", and
    BatchNorm's `num_batches_tracked` may be absent; the backbone's `adapt_state` says what other keys mean.

    Args:
        backbone: is filled.
        path: of the weights.
        known: tags of published weights, for the message about a path that is not there.

    Raises:
        MissingDataError: no such file.
        InputError: not readable, or missing or unexpected keys or shapes; the message names the first few.
    """
    check_there(path, known)
    found = backbone.adapt_state(backbone.read_state(path))
    expected = backbone.state_dict()
    if faults := faults_of_state(found, expected):
        raise InputError(
            f"{path}: these weights do not fit backbone {backbone.spec.name!r}: {faults}; expected its {len(expected)} "
            "parameters and buffers, each once"
        )
    if broken := not_finite(found):
        raise InputError(f"{path}: {broken[0]} holds NaN or infinity; expected finite weights, fetch it again")
    backbone.load_state_dict({**expected, **found}, strict=True)
