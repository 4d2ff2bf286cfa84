"""What a backbone is: its calls, and the registry of families."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ifcar.errors import InputError, MissingDataError, nearest_of
from ifcar.extract.backbones.random_init import randomise
from ifcar.extract.backbones.spec import BackboneRequest, BackboneSpec, NoConfig, PublishedWeights
from ifcar.extract.backbones.state_files import read_state
from ifcar.registry import Registry

Maps = dict[str, Tensor]
"""Feature maps by name, each (B, C, T′, H, W); see `BackboneSpec.maps`."""


class Backbone(nn.Module):
    """A network that ends in feature maps; its state-dict keys are the published checkpoint's.

    What a family gives is `forward`. A family whose weights come under other keys overrides `adapt_state`, one whose
    folders are read by a library of their own, `read_state`; one whose
    random weights need more than He's, `initialise`; one that keeps layers behind its maps, `run_every_layer`; one that
    reads no pixels, `normalise`. A method `classify(video) → logits` is a family's own affair.

    Args:
        spec: the facts of this backbone.

    Attributes:
        wrappers: keys of a weights file, any of which may hold the state dict.
        recomputes: whether a training pass keeps only what goes from stage to stage, and computes the rest again for
            the gradient.
    """

    wrappers: ClassVar[tuple[str, ...]] = ("model_state", "state_dict")

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.spec = spec
        self.recomputes = False

    def normalise(self, inputs: Tensor) -> Tensor:
        """Turn what was decoded into the network's input.

        Args:
            inputs: (B, T, S, S, 3) uint8 RGB.

        Returns:
            (B, 3, T, S, S) float32, (x / 255 − mean) / std, in channels_last_3d memory layout: the frames' own
            order of bytes, so that no transposed copy is made.
        """
        if inputs.dtype != torch.uint8 or inputs.ndim != 5 or inputs.shape[-1] != 3:
            raise InputError(
                f"frames are {inputs.dtype} {tuple(inputs.shape)}; expected torch.uint8 (B, T, S, S, 3) RGB"
            )
        mean, std = self.spec.normalisation.mean, self.spec.normalisation.std
        # A tensor made on a GPU of numbers waits for all that the GPU was given before.
        factors = torch.tensor([1 / (255 * s) for s in std]).to(inputs.device, non_blocking=True)
        shifts = torch.tensor([m / s for m, s in zip(mean, std, strict=True)]).to(inputs.device, non_blocking=True)
        video = inputs.permute(0, 4, 1, 2, 3).to(torch.float32, memory_format=torch.channels_last_3d)
        return video.mul_(factors.view(3, 1, 1, 1)).sub_(shifts.view(3, 1, 1, 1))

    def stages(self) -> Mapping[str, nn.Module]:
        """Return the parts that the maps come out of, by name, in order; nothing behind them."""
        return dict(self.named_children())

    def through(self, stage: nn.Module, value: Any) -> Any:
        """Run one stage, keeping its inner activations for the gradient or not, as `recomputes` says."""
        if self.recomputes and torch.is_grad_enabled() and any(p.requires_grad for p in stage.parameters()):
            return checkpoint(stage, value, use_reentrant=False)
        return stage(value)

    def freeze(self, last_stage: str | None) -> None:
        """Let gradients reach the stages behind `last_stage` (None: all of them) and nothing else of the network.

        Raises:
            InputError: there is no such stage.
        """
        stages = self.stages()
        if last_stage is not None and last_stage not in stages:
            raise InputError(f"backbone {self.spec.name!r} has no stage {last_stage!r}{nearest_of(last_stage, stages)}")
        self.requires_grad_(False)
        frozen = last_stage is not None
        for name, stage in stages.items():
            stage.requires_grad_(not frozen)
            frozen = frozen and name != last_stage

    def forward(self, video: Tensor) -> Maps:
        """Return the maps of `BackboneSpec.maps` of a normalised input, (B, 3, T, S, S) where pixels are read."""
        raise NotImplementedError

    def initialise(self, seed: int) -> None:
        """Give the network random weights, the same for the same seed, and leave it in evaluation mode."""
        randomise(self, seed)

    def run_every_layer(self, video: Tensor) -> object:
        """Run the network with those of its layers, too, that no map needs."""
        return self(video)

    def read_state(self, path: Path) -> dict[str, Tensor]:
        """Return the tensors of a weights file or folder, as they are called there."""
        return read_state(path, self.wrappers)

    def adapt_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a weights file's tensors under this network's keys and in its shapes; what has no place stays."""
        return state

    def checked(self, maps: Maps) -> Maps:
        """Return maps of a batch, float32.

        Raises:
            InputError: they are not those that the spec states.
        """
        spec = self.spec
        stated = {name: (spec.channels, spec.num_steps, *size) for name, size in spec.maps.items()}
        found = {name: tuple(value.shape[1:]) for name, value in maps.items()}
        if found != stated:
            raise InputError(
                f"backbone {spec.name!r} gives maps (C, T′, H, W) {found}, but states {stated}; mend either"
            )
        return {name: value.float() for name, value in maps.items()}


def _nothing(name: str | None) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneFamily:
    """One registered backbone, or several that differ in size.

    Args:
        resolve: makes the facts for a size of views; depends on the request alone.
        build: makes the uninitialised module from the facts alone; None where nothing is read.
        facts: reads what weights say of their network, given as `--weights` has them, from a folder's config.json for
            example; JSON values. A run keeps them, so that its network is known where the folder is not.
        published: name → tag → weights that can be fetched, the default first.
        config_type: frozen dataclass of the family's own options.
        variants: what follows a colon behind the registered name; empty where nothing does.
        shown_frames: T that the family is listed for: one that it takes.
    """

    resolve: Callable[[BackboneRequest], BackboneSpec]
    build: Callable[[BackboneSpec], Backbone] | None
    facts: Callable[[str | None], Mapping[str, Any]] = _nothing
    published: Callable[[str], Mapping[str, PublishedWeights]] = _nothing
    config_type: type[Any] = NoConfig
    variants: str = ""
    shown_frames: int = 32

    def reads_facts(self, weights: str) -> bool:
        """Return whether these weights say what network of this family they belong to."""
        try:
            return bool(self.facts(weights))
        except (InputError, MissingDataError):
            return False


BACKBONES: Registry[BackboneFamily] = Registry("backbone")
"""Every backbone by name: adding one is one file and one import in `catalog`."""
