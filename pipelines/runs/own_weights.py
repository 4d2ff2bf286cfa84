"""The backbone's weights behind a run, found by their SHA-256 where nobody names them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ifcar.data_files import subfolders
from ifcar.errors import InputError
from ifcar.extract.backbones.downloads import sha256_file
from ifcar.extract.weights import kept_weights, tags_of
from ifcar.pipelines.folders import folder
from ifcar.pipelines.runs.recipe import Recipe

BACKBONE = "backbone.safetensors"
"""The file of a fine-tuned run's backbone, in the run's folder."""


def own_weights(run: Path, recipe: Recipe, homes: Sequence[Path]) -> str:
    """Return the weights that a run was trained on, as `load_weights` takes them.

    Args:
        run: its folder, for messages.
        recipe: how its features were made.
        homes: folders of the run, or of an ensemble's members.

    Raises:
        InputError: they are a file that is not at hand, and no published one.
    """
    if recipe.weights.startswith("random:"):
        return recipe.weights
    if found := kept_weights(recipe.weights, folder("weights")) or tuned_file(recipe.weights, homes):
        return str(found)
    tags = tags_of(recipe.weights, recipe.backbone.published)
    if tags and not recipe.backbone.reduction:  # which fine-tuning alone adds
        return tags[0]
    raise InputError(
        f"{run}: trained on {recipe.backbone.name} weights of SHA-256 {recipe.weights[:12]}…, which are neither "
        f"published nor the {BACKBONE} of this run or one beside it; name that file with --weights"
    )


def tuned_file(digest: str, homes: Iterable[Path]) -> Path | None:
    """Return the backbone of this SHA-256 that a fine-tuned run left: in a home, beside one or in the runs folder."""
    homes = list(homes)
    rooms = dict.fromkeys([*(home.absolute().parent for home in homes), folder("runs").absolute()])
    beside = [run for room in rooms if room.is_dir() for run in subfolders(room)]
    files = (home / BACKBONE for home in dict.fromkeys([*homes, *beside]))
    return next((file for file in files if file.is_file() and sha256_file(file) == digest), None)
