"""M heads of one structure as one: weights in one matrix, a row a head; one batched product a layer.

The heads differ in numbers only: weights, running statistics, dropout rates. Their forward passes run as one under
`torch.func.vmap`, and as their losses are added, each row gets the gradient that its head would get alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import vmap

from ifcar.heads.contract import Head, HeadOutput, InstanceBatch

Scores = tuple[Tensor, dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]
"""What a head trains its outputs on, its losses, its tasks' logits and their log variances."""


class Columns(NamedTuple):
    """Where a trainable parameter lies in a row of weights."""

    first: int
    end: int
    shape: torch.Size


@dataclass(frozen=True, kw_only=True)
class Stack:
    """M heads as one.

    Args:
        template: a head of the structure, without memory of its own; holds the mode, training or evaluation.
        places: where the template looks for each parameter and buffer: the module's dict, the key in it, the full name.
        kept: names of the arrays of a head's `state_dict`.
        columns: where each trainable parameter lies in a row.
        weights: (M, W), all trainable parameters of a head in a row.
        gradients: (M, W).
        parameters: by name (M, …), what gradients are taken of; shares the memory of `weights`.
        constants: by name (M, …), frozen parameters and buffers; a forward pass in training mode moves the running
            statistics among them.
    """

    template: Head
    places: Sequence[tuple[dict[str, Any], str, str]]
    kept: Sequence[str]
    columns: Mapping[str, Columns]
    weights: Tensor
    gradients: Tensor
    parameters: Mapping[str, Tensor]
    constants: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.weights)

    def set_training(self, training: bool) -> None:
        """Put the heads in training or in evaluation mode."""
        if self.template.training != training:
            self.template.train(training)

    def first(self, count: int) -> Stack:
        """Return the stack of the first `count` heads; it shares this one's memory."""
        return replace(
            self,
            weights=self.weights[:count],
            gradients=self.gradients[:count],
            parameters=_parameters(self.weights[:count], self.columns),
            constants={name: value[:count] for name, value in self.constants.items()},
        )

    def score(self, batch: InstanceBatch, *, per_head: bool, noise: Mapping[str, Tensor] | None = None) -> HeadOutput:
        """Score a batch with every head.

        Args:
            batch: one for all heads, (B, …), or one for each, (M, B, …).
            per_head: whether each head has a batch of its own.
            noise: of every layer that draws, see `draw_noise`; needed in training mode only.

        Returns:
            logits (M, B, K), outputs (M, B, O, K) where there are several, losses (M,), and of a head of several tasks
            theirs, in the precision of the weights.
        """
        state = {**self.parameters, **self.constants, **(noise or {})}
        if len(self) == 1:
            one = {name: value.squeeze(0) for name, value in state.items()}
            its_arrays = {name: value.squeeze(0) for name, value in batch.arrays.items()} if per_head else batch.arrays
            found = _map(self._score_one(one, its_arrays), lambda value: value.unsqueeze(0))
        else:
            found = vmap(self._score_one, in_dims=(0, 0 if per_head else None))(state, dict(batch.arrays))
        outputs, *named = _map(found, lambda value: value.to(self.weights.dtype))
        losses, tasks, log_variances = named
        return HeadOutput(
            logits=outputs.mean(-2),
            losses=losses,
            outputs=outputs if outputs.shape[-2] > 1 else None,
            tasks=tasks,
            log_variances=log_variances,
        )

    def _score_one(self, state: Mapping[str, Tensor], arrays: Mapping[str, Tensor]) -> Scores:
        # As torch.func.functional_call, without its looking every name up, which takes as long as the layers do.
        for slots, key, name in self.places:
            slots[key] = state.get(name)
        if not self.template.stackable:
            _refresh_recurrent(self.template)
        out = self.template(InstanceBatch(arrays))
        return out.trained(), dict(out.losses), dict(out.tasks), dict(out.log_variances)

    def forget_step(self) -> None:
        """Let go of what the template still holds of the last forward pass, and with it of that pass's gradients."""
        for slots, key, _ in self.places:
            slots[key] = None

    def fill_gradients(self, losses: Tensor) -> None:
        """Put the gradient of each head's loss (M,) into its row of `gradients`."""
        names = list(self.parameters)
        found = torch.autograd.grad(
            losses.sum(), [self.parameters[name] for name in names], allow_unused=True, materialize_grads=True
        )
        for name, gradient in zip(names, found, strict=True):
            place = self.columns[name]
            self.gradients[:, place.first : place.end] = gradient.flatten(1)

    def state(self, place: int) -> dict[str, Tensor]:
        """Return a copy of one head's state, as its `state_dict` would be."""
        return {key: self._array(key)[place].detach().clone() for key in self.kept}

    def load(self, place: int, state: Mapping[str, Tensor]) -> None:
        """Put a state into one head."""
        with torch.no_grad():
            for key in self.kept:
                self._array(key)[place].copy_(state[key])

    def states(self) -> dict[str, Tensor]:
        """Return the state of all heads, each array (M, …); not copied."""
        return {key: self._array(key).detach() for key in self.kept}

    def _array(self, key: str) -> Tensor:
        return self.parameters[key] if key in self.parameters else self.constants[key]


def _map(scores: Scores, change: Callable[[Tensor], Tensor]) -> Scores:
    outputs, losses, tasks, spreads = scores
    losses, tasks, spreads = ({name: change(v) for name, v in own.items()} for own in (losses, tasks, spreads))
    return change(outputs), losses, tasks, spreads


def stack_heads(heads: Sequence[Head], device: torch.device) -> Stack:
    """Copy heads of one structure to a stack on `device`."""
    template = copy.deepcopy(heads[0]).to("meta")
    columns: dict[str, Columns] = {}
    end = 0
    for name, parameter in template.named_parameters():
        if parameter.requires_grad:
            columns[name] = Columns(end, end + parameter.numel(), parameter.shape)
            end += parameter.numel()
    places = [
        (slots, key, f"{prefix}.{key}" if prefix else key)
        for prefix, module in template.named_modules()
        for slots in (cast(dict[str, Any], module._parameters), cast(dict[str, Any], module._buffers))
        for key in slots
    ]
    arrays = [dict(head.named_parameters()) | dict(head.named_buffers()) for head in heads]
    with torch.no_grad():
        weights = torch.stack([torch.cat([own[name].flatten() for name in columns]) for own in arrays]).to(device)
        constants = {k: torch.stack([own[k] for own in arrays]).to(device) for k in arrays[0] if k not in columns}
    return Stack(
        template=template,
        places=places,
        kept=tuple(heads[0].state_dict()),
        columns=columns,
        weights=weights,
        gradients=torch.zeros_like(weights),
        parameters=_parameters(weights, columns),
        constants=constants,
    )


def _refresh_recurrent(template: Head) -> None:
    """Let torch's recurrent layers, which hold their weights in a list as well, find those that are in place now."""
    for module in template.modules():
        if isinstance(module, nn.RNNBase):
            module._flat_weights = [module._parameters.get(name) for name in module._flat_weights_names]


def _parameters(weights: Tensor, columns: Mapping[str, Columns]) -> dict[str, Tensor]:
    """Return leaves that share the memory of `weights`."""
    return {
        name: weights[:, place.first : place.end].view(len(weights), *place.shape).requires_grad_()
        for name, place in columns.items()
    }
