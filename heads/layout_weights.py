"""State dicts of the released layout transformers (Radevski et al. 2021), every key accounted for."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ifcar.errors import CacheMismatchError, InputError, one_of
from ifcar.heads.contract import Head

Prefixes = tuple[tuple[str, str], ...]  # theirs, ours; the first that fits counts

_LAYOUT: Prefixes = (
    ("frames_embeddings.layout_embedding.category_box_embeddings.", "boxes."),
    ("frames_embeddings.layout_embedding.transformer.", "spatial."),
    ("frames_embeddings.", ""),
    ("transformer.", "temporal."),
)
_APPEARANCE: Prefixes = (
    ("cls_token", "tokens.cls_token"),
    ("pos_embed", "tokens.pos_embed"),
    ("projector.", "projector."),
    ("transformer.", "transformer."),
)


def _hidden(theirs: str, ours: str, classifier: str) -> Prefixes:
    return (
        (f"{theirs}.fc1.", f"{ours}.fc1."),
        (f"{theirs}.layer_norm.", f"{ours}.layer_norm."),
        (f"{theirs}.fc2.", classifier),
    )


def _below(theirs: str, ours: str, prefixes: Prefixes) -> Prefixes:
    return tuple((theirs + a, ours + b) for a, b in prefixes)


def _fusion(theirs: str) -> Prefixes:
    branches = _below(f"{theirs}layout_branch.", "fusion.layout.", _LAYOUT)
    branches += _below(f"{theirs}appearance_branch.", "fusion.appearance.", _APPEARANCE)
    return (*branches, (f"{theirs}mm_fusion.", "fusion.layers."))


NAMES: Mapping[str, Prefixes] = {
    "stlt": (*_below("backbone.", "layout.", _LAYOUT), *_hidden("prediction_head", "hidden", "classifier.")),
    "lcf": (
        *_below("layout_branch.", "layout.", _LAYOUT),
        *_below("appearance_branch.", "appearance.", _APPEARANCE),
        *_hidden("classifier", "hidden", "classifier."),
    ),
    "caf": (*_fusion("caf_backbone."), *_hidden("classifier", "hidden", "classifier.")),
    "cacnf": (
        *_fusion("backbone."),
        *_hidden("layout_classifier", "layout_hidden", "classifier.layout."),
        *_hidden("appearance_classifier", "appearance_hidden", "classifier.appearance."),
        *_hidden("fusion_classifier", "fusion_hidden", "classifier.fusion."),
    ),
}
UNUSED = {
    ".layout_embedding.encoder_layer.": "the layer of which the spatial encoder's are copies",
    ".position_ids": "numbers from 0 on",
    ".score_embeddings.": "scores, which this config does not read",
    "appearance_branch.resnet.": "the backbone, which made the cache",
    "appearance_branch.classifier.": "the appearance branch's own classifier, which the fusing heads never call",
}


def load_released(head: Head, state: Mapping[str, Tensor]) -> Mapping[str, str]:
    """Put a released state dict into a head of preset `released`.

    Args:
        head: `stlt`, `lcf`, `caf` or `cacnf`.
        state: the released code's state dict of the model of that name.

    Returns:
        Every key that was left aside, with the reason.

    Raises:
        InputError: a head of another kind, or a key that is neither known nor unused.
        CacheMismatchError: an array is missing or has another shape than the head's.
    """
    if head.name not in NAMES:
        raise InputError(f"head {head.name!r} has no released layout transformer; expected {one_of(NAMES)}")
    expected, found, aside = head.state_dict(), {}, {}
    for key, value in state.items():
        name = next((ours + key[len(theirs) :] for theirs, ours in NAMES[head.name] if key.startswith(theirs)), None)
        reason = next((reason for part, reason in UNUSED.items() if part in f".{key}"), None)
        if name in expected:
            found[name] = _in_our_shape(name, value)
        elif reason is not None:
            aside[key] = reason
        else:
            raise InputError(f"released {head.name}: unknown key {key!r}; expected a state dict of that model")
    for name, ours in expected.items():
        if name not in found:
            raise CacheMismatchError(f"released {head.name}: the state dict has nothing for {name}")
        if found[name].shape != ours.shape:
            raise CacheMismatchError(
                f"released {head.name}: {name} has the shape {tuple(found[name].shape)}; the head expects "
                f"{tuple(ours.shape)}, which follows from the cache and the head's options"
            )
    head.load_state_dict(found)
    return aside


def _in_our_shape(name: str, value: Tensor) -> Tensor:
    """Return a 1 × 1 × 1 convolution's kernel as a matrix, and tokens with the clip's axis first."""
    if name.endswith("projector.weight"):
        return value.flatten(1)
    if name.endswith(("tokens.cls_token", "tokens.pos_embed")):
        return value.transpose(0, 1)
    return value
