"""ORN's relations: h_θ of every clique of objects from two frames, added up by frame (Eq. 3–4)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.heads.noise import Noise
from ifcar.heads.orn_config import ORNConfig
from ifcar.heads.orn_objects import Objects, perceptron
from ifcar.heads.rows import add_up

PRESENT, VISUAL_SUM, CODE_SUM = 0, 1, 2  # `Objects.facts`


class Ends(NamedTuple):
    """Objects of S frames that cliques take their first, or their other, members from.

    Args:
        products: of the first layer, one for each place in the clique: (B, S, N, H).
        facts: (B, S, N, 3).
    """

    products: tuple[Tensor, ...]
    facts: Tensor

    def of(self, frames: slice) -> Ends:
        """Return those of some frames."""
        return Ends(tuple(product[:, frames] for product in self.products), self.facts[:, frames])


class Relations(nn.Module):
    """The global interaction of a frame t with an earlier one s, g_t = Σ_{j,k} m_s^j m_t^k h_θ([o_s^j ; o_t^k]).

    h_θ is three layers of Linear and ReLU. Its first, W = [W_1 W_2], is applied to each object, not to each pair:
    W [a ; b] = W_1 a + W_2 b; what differs from pair to pair starts with a sum and its ReLU.

    In training s is drawn for every clip and t, uniformly from the frames before t; in evaluation g_t is the mean over
    all of them. With `pairs` "intra" the first members come from t itself.
    """

    def __init__(self, config: ORNConfig, num_steps: int, num_objects: int, width: int) -> None:
        super().__init__()
        self.config = config
        objects = {1: (2, num_objects), 2: (num_objects,) * 2, 3: (num_objects,) * 3}[config.clique]
        self.layers = perceptron(
            config.clique * width, [config.relation_dim] * 3, config.dropout, (num_steps - 1, *objects)
        )
        self.earlier = Noise((num_steps - 1,))

    def forward(self, objects: Objects) -> Tensor:
        """Return g_t, (B, T′ − 1, H), of t = 2 … T′."""
        first, second = self._ends(objects)
        num_past = torch.arange(1, second.facts.shape[1] + 1, device=second.facts.device)
        if self.config.pairs == "intra":
            times = torch.ones_like(num_past) if self.training else num_past
            return self._frame_by_frame(first, second, times)
        if self.training:
            return self._frame_by_frame(self._draw(first, num_past), second, torch.ones_like(num_past))
        return torch.cat([self._mean_over_past(first, second, t) for t in range(len(num_past))], dim=1)

    def strengths(self, objects: Objects) -> Tensor:
        """Return e[t, s, j, k] = Σ_d h_θ of each pair, (B, T′, T′, N, N); zero for s ≥ t and where either is absent."""
        first, second = self._ends(objects)
        num_frames = second.facts.shape[1] + 1
        rows = []
        for t in range(num_frames - 1):
            then = first.of(slice(t, t + 1)) if self.config.pairs == "intra" else first.of(slice(t + 1))
            now = second.of(slice(t, t + 1))
            of_past = self._relate(then, now).sum(-1) * self._gate(then.facts, now.facts)
            of_past = of_past.expand(-1, t + 1, -1, -1)
            rows.append(F.pad(of_past, (0, 0, 0, 0, 0, num_frames - t - 1)))
        return torch.stack([torch.zeros_like(rows[0]), *rows], dim=1)

    def _ends(self, objects: Objects) -> tuple[Ends, Ends]:
        """Return the first members by s = 1 … T′ − 1 (intra: by t), the others by t = 2 … T′."""
        o, facts = objects.features, objects.facts
        linear: Any = self.layers[0]
        weights = linear.weight.chunk(self.config.clique, dim=1)
        of_first = slice(1, None) if self.config.pairs == "intra" else slice(-1)
        first = F.linear(o[:, of_first], weights[0], linear.bias)
        others = tuple(F.linear(o[:, 1:], weight) for weight in weights[1:])
        if self.config.clique == 1:
            others = (F.linear(o[:, 1:], weights[0], linear.bias),)
        return Ends((first,), facts[:, of_first]), Ends(others, facts[:, 1:])

    def _draw(self, first: Ends, num_past: Tensor) -> Ends:
        """Take one of the t − 1 earlier frames for each clip and t, as a product: shapes depend on no value."""
        number = (self.earlier.drawn(len(first.facts), num_past.device) * num_past).floor()
        chosen = number.unsqueeze(-1) == torch.arange(len(num_past), device=num_past.device)  # (B, T′ − 1, T′ − 1)

        def take(values: Tensor) -> Tensor:
            return (chosen.to(values.dtype) @ values.flatten(2)).reshape(values.shape)

        return Ends(tuple(take(product) for product in first.products), take(first.facts))

    def _frame_by_frame(self, first: Ends, second: Ends, times: Tensor) -> Tensor:
        """Return g (B, S, H) of frame pairs, each with itself; `times` (S,) earlier frames have each gate."""
        weights = self._gate(first.facts, second.facts)
        if self.config.gate == "sums":
            weights = (weights * times.view(-1, *[1] * (weights.dim() - 2))).clamp(0, 1)
        cliques = self._relate(first, second)
        return (weights.flatten(2).unsqueeze(2).to(cliques.dtype) @ cliques.flatten(2, -2)).squeeze(2)

    def _mean_over_past(self, first: Ends, second: Ends, t: int) -> Tensor:
        """Return g (B, 1, H) of the t-th frame that has earlier ones: their mean."""
        then, now = first.of(slice(t + 1)), second.of(slice(t, t + 1))
        weights = self._gate(then.facts, now.facts)
        if self.config.gate == "sums":
            weights = weights.sum(1, keepdim=True).clamp(0, 1).expand_as(weights)
        cliques = self._relate(then, now)
        return weights.flatten(1).unsqueeze(1).to(cliques.dtype) @ cliques.flatten(1, -2) / (t + 1)

    def _relate(self, first: Ends, second: Ends) -> Tensor:
        """Return h_θ of every clique, (B, S, N, N, H), or (B, S, 2, N, H) or (B, S, N, N, N, H)."""
        (j,) = first.products
        if self.config.clique == 1:
            (k,) = second.products
            hidden = torch.stack([j, k.expand_as(j)], dim=2)
        elif self.config.clique == 2:
            (k,) = second.products
            hidden = j.unsqueeze(3) + k.unsqueeze(2)
        else:
            k, other = second.products
            hidden = j[:, :, :, None, None] + (k.unsqueeze(3) + other.unsqueeze(2)).unsqueeze(2)
        for layer in list(self.layers)[1:]:
            hidden = layer(hidden)
        return hidden

    def _gate(self, first: Tensor, second: Tensor) -> Tensor:
        """Return what each clique counts, as `_relate` without the last axis, from facts (B, S, N, 3)."""
        second = second.expand_as(first)
        if self.config.clique == 1:
            ends = torch.stack([first, second], dim=2)
            return _counts([ends[..., fact] for fact in range(3)], [], self.config.gate)
        own = [first[..., fact] for fact in range(3)]
        others = [[second[..., fact]] for fact in range(3)]
        if self.config.clique == 2:
            return _counts([v.unsqueeze(3) for v in own], [[v[0].unsqueeze(2) for v in others]], self.config.gate)
        members = [[v[0][:, :, None, :, None] for v in others], [v[0][:, :, None, None, :] for v in others]]
        different = ~torch.eye(second.shape[2], dtype=torch.bool, device=second.device)
        return _counts([v[:, :, :, None, None] for v in own], members, self.config.gate) * different


def _counts(first: list[Tensor], others: list[list[Tensor]], gate: str) -> Tensor:
    """Return the gate of cliques from the facts of their members, which broadcast."""
    if gate == "presence":
        count = first[PRESENT]
        for other in others:
            count = count * other[PRESENT]
        return count
    rest = add_up([first[CODE_SUM], *(other[VISUAL_SUM] + other[CODE_SUM] for other in others)])
    return first[VISUAL_SUM].clamp(0, 1) * rest.clamp(0, 1)
