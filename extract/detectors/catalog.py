"""Every detector by name: adding one is one file and one import here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ifcar.extract.detectors.mediapipe_hands
import ifcar.extract.detectors.mediapipe_objects
import ifcar.extract.detectors.torchvision_detection
import ifcar.extract.detectors.transformers_detection
import ifcar.extract.detectors.transformers_phrases
from ifcar.errors import InputError, MissingDataError, nearest_of
from ifcar.extract.detectors.contract import DETECTORS, Detector, DetectorFamily, DetectorRequest

__all__ = ["DETECTORS", "get_detector", "load_detector"]


def get_detector(name: str) -> DetectorFamily:
    """Return the family of a name such as "mediapipe-hands" or "torchvision:fcos_resnet50_fpn".

    Raises:
        InputError: no such name; the message lists the known ones. Or a variant is missing or not known of.
    """
    registered, colon, variant = name.partition(":")
    family = DETECTORS.get(registered)
    if family.variants and variant not in family.variants:
        said = f"has no variant {variant!r}{nearest_of(variant, family.variants)}" if colon else "needs a variant: "
        raise InputError(f"detector {registered!r} {said}{'' if colon else ', '.join(family.variants)}")
    if colon and not family.variants:
        raise InputError(f"detector {name!r}: {registered!r} has no variants; leave out what is behind the colon")
    return family


def load_detector(
    name: str,
    *,
    weights: str | None,
    phrases: Sequence[str],
    least_score: float,
    device: str,
    weights_dir: Path,
) -> Detector:
    """Return a detector, loaded.

    Args:
        name: registered name, with a variant where the family has any.
        weights: a file or folder, or "published"; None takes the published ones.
        phrases: what to look for, of a detector that reads them.
        least_score: what is found with less is of no use.
        device: "cpu", "cuda", ….
        weights_dir: folder for downloads.

    Raises:
        InputError, MissingDataError: no such detector, phrases given in vain or missing, or weights that do not fit.
    """
    family = get_detector(name)
    if phrases and not family.reads_phrases:
        raise InputError(
            f"--phrases {','.join(phrases)!r:.100} would be ignored: detector {name!r} knows the classes of its "
            "training alone; choose among them with --classes, or take transformers-phrases"
        )
    if family.reads_phrases and not phrases:
        raise InputError(f"detector {name!r} looks for what it is told; say what with --phrases hand,cup")
    if family.published is None and weights in (None, "published"):
        raise MissingDataError(
            f"detector {name!r} has no weights that can be fetched; give its file or folder with --weights (predict: "
            "--detector-weights)"
        )
    return family.load(
        DetectorRequest(
            name=name,
            variant=name.partition(":")[2],
            weights=weights or "published",
            phrases=tuple(phrases),
            least_score=least_score,
            device=device,
            weights_dir=weights_dir,
        )
    )
