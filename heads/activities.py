"""From observations to one descriptor for each activity, to their correlations and to scores.

Zhang et al., §3.1–3.3: Eq. 1 and 5–11. A: activities (the classes), K: observations, C′: channels of a descriptor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ifcar.heads.dropout import Dropout
from ifcar.heads.observations import GroupedLinear


class Combination(nn.Module):
    """Descriptors that combine the observations, each activity by weights of its own.

        Attn_A = softmax_k( W^A Obs_k ),   F_A = Attn_A Obs

    Source: Zhang et al., Eq. 1 and 5. Attn_A is said to be made "similarly" to Eq. 12: a softmax over dot products. An
    activity is no row of the observations, so its query is a learned row of W^A (A, C′). With it the parameters of
    their Tables 3 and 4 come out, at 1024 activities too.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.queries = nn.Linear(width, num_classes, bias=False)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Map observations (B, K, C′) to descriptors (B, A, C′) and Attn_A (B, A, K)."""
        attention = self.queries(observations).transpose(1, 2).softmax(-1)
        return attention.to(observations.dtype) @ observations, attention


class Correlation(nn.Module):
    """Descriptors of what else goes on.

        Mask(j, k) = N_jk / N_j,   Attn_C = softmax_k( (W^β f_j)ᵀ W^γ f_k ),   F_AC = (Attn_C + Mask) F_A

    Source: Zhang et al., Eq. 6–8. Attn_C, "similar" to Eq. 12 as well, is read as attention among the descriptors, with
    W^β and W^γ of C′ × C′. Before the labels are known, and for a class without clips, Mask is zero.
    """

    co_occurrence: Tensor

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.beta = nn.Linear(width, width, bias=False)
        self.gamma = nn.Linear(width, width, bias=False)
        self.register_buffer("co_occurrence", torch.zeros(num_classes, num_classes))

    def count(self, labels: Tensor) -> None:
        """Set Mask from labels (n, A), 1 where a clip shows the activity."""
        present = labels.to(self.co_occurrence)
        together = present.T @ present
        self.co_occurrence.copy_(together / together.diagonal().clamp(min=1).unsqueeze(1))

    def forward(self, descriptors: Tensor) -> Tensor:
        """Map (B, A, C′) to (B, A, C′)."""
        attention = (self.beta(descriptors) @ self.gamma(descriptors).transpose(1, 2)).softmax(-1)
        correlated: Tensor = (attention + self.co_occurrence) @ descriptors
        return correlated


class Score(nn.Module):
    """One number for each activity from its descriptor, w ᵀ f_i + b_i.

    Source: Zhang et al., Eq. 9 and 10; W is one row for all activities, or with `per_activity` one row each.
    """

    def __init__(self, num_classes: int, width: int, *, per_activity: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes if per_activity else 1, width))
        self.bias = nn.Parameter(torch.empty(num_classes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias as `nn.Linear` does."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, descriptors: Tensor) -> Tensor:
        """Map (B, A, C′) to (B, A)."""
        scores: Tensor = (descriptors * self.weight).sum(-1) + self.bias
        return scores


class ActivityScores(nn.Module):
    """Everything that knows the classes: descriptors, correlations and the two outputs.

    Args:
        num_classes: A.
        width: C′.
        shared: (C, n) where descriptors are grouped linear maps of one feature of C channels, the same for all
            activities, in place of combinations of observations.
        correlation: whether there is a second output, from the correlated descriptors.
        own_scores: see `Score`.
        dropout: of the descriptors before each output.
    """

    def __init__(
        self,
        num_classes: int,
        width: int,
        *,
        shared: tuple[int, int] | None,
        correlation: bool,
        own_scores: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.combination = None if shared else Combination(num_classes, width)
        self.shared = GroupedLinear(num_classes, shared[1], shared[0], width) if shared else None
        self.dropout = Dropout(dropout, (num_classes, width))
        self.score = Score(num_classes, width, per_activity=own_scores)
        self.correlation = Correlation(num_classes, width) if correlation else None
        self.correlated_dropout = Dropout(dropout, (num_classes, width)) if correlation else None
        self.correlated_score = Score(num_classes, width, per_activity=own_scores) if correlation else None

    def forward(self, features: Tensor) -> Tensor:
        """Map observations (B, K, C′), or a shared feature (B, C), to the logits of each output (B, O, A)."""
        if self.shared is not None:
            descriptors = self.shared(features)
        else:
            assert self.combination is not None
            descriptors, _ = self.combination(features)
        outputs = [self.score(self.dropout(descriptors))]
        if self.correlation is not None:
            assert self.correlated_dropout is not None and self.correlated_score is not None
            outputs.append(self.correlated_score(self.correlated_dropout(self.correlation(descriptors))))
        return torch.stack(outputs, dim=1)
