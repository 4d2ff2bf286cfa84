"""What an extraction must have been like: options that a cache is checked for before anything is trained from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ifcar.cache.arrays import CacheSpec
from ifcar.config_fields import fields_of, words_for, words_of
from ifcar.errors import InputError, nearest_of
from ifcar.pipelines.configs import from_plain
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.stated import stated_options

NO_PIXELS = "none"  # the backbone; every cache holds what it gives
KNOWN = (
    *("frames", "layout_frames", "crop", "views", "augmented_views", "instances", "background", "framing"),
    *("sampling", "sampling_fps", "sampling_rates", "spatial_stride", "pooled", "precision", "backbone"),
    *("backbone_options", "grid"),
)


def needed(options: Mapping[str, Any], dataset: str, where: str) -> ExtractConfig:
    """Return the extraction that these options ask for.

    Args:
        options: fields of `ExtractConfig` that caches state.
        dataset: registered name.
        where: what messages say of the options.

    Raises:
        InputError: an option that no cache can be checked for, or a value out of range.
    """
    for name in options:
        if name not in KNOWN:
            raise InputError(f"{where}: unknown key {name!r}{nearest_of(name, KNOWN)}")
    return from_plain(ExtractConfig, {"dataset": dataset, **options}, where)


def unmet(config: ExtractConfig, names: Mapping[str, Any], identity: Mapping[str, Any], spec: CacheSpec) -> list[str]:
    """Return which of the named options a cache was not extracted with; what it does not state is passed over."""
    found = stated_options(identity, spec) if names else {}
    return [name for name in names if name in found and not _meets(name, getattr(config, name), found[name])]


def _meets(name: str, wanted: Any, found: Any) -> bool:
    if name == "backbone_options":
        return all(found.get(key) == value for key, value in wanted.items())
    if (name, wanted) in (("backbone", NO_PIXELS), ("grid", False)):
        return True
    return bool(wanted == found)


def described(names: list[str], identity: Mapping[str, Any], spec: CacheSpec) -> str:
    """Return what a cache has in place of the named options, in words: "8 annotated frames, --pooled 3"."""
    found, words = stated_options(identity, spec), list[str]()
    if any(name == "frames" or name.startswith("sampling") for name in names):
        words.append(_frames(found))
    for name in names:
        if name == "grid":
            words.append("no feature map")
        elif name != "frames" and not name.startswith("sampling"):
            words.append(" ".join(map(str, words_for(fields_of(ExtractConfig)[name], found[name]))) or f"no {name}")
    return ", ".join(words)


def _frames(found: Mapping[str, Any]) -> str:
    count = f"{found['frames']}"
    if found.get("sampling_rates"):
        return f"{count} frames at sampling rates {','.join(f'{rate:g}' for rate in found['sampling_rates'])}"
    if found.get("sampling_fps"):
        return f"{count} frames at {found['sampling_fps']:g} a second"
    return f"{count} {'annotated ' if found.get('sampling') == 'annotated' else ''}frames"


def asked_for(config: ExtractConfig, names: list[str]) -> str:
    """Return the named options as a command line gives them."""
    known = fields_of(ExtractConfig)
    return " ".join(str(word) for name in names for word in words_for(known[name], getattr(config, name)))


def extract_words(config: ExtractConfig) -> list[Any]:
    """Return the words of the command that makes such a cache."""
    return ["ifcar", "extract", *words_of(config)]
