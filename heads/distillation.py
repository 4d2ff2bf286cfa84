"""What a student learns of a teacher's answers: soft cross entropies of classes of which a clip has one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from torch import Tensor

from ifcar.heads.rows import add_up


def distillation(logits: Sequence[Tensor], *, temperature: float, detach: bool) -> Tensor:
    """Return Σ over streams of τ² · the mean over the others of CE(student / τ, softmax(teacher / τ)).

    Args:
        logits: of the same classes by each stream, (B, K).
        temperature: τ.
        detach: the gradient does not reach the teachers.
    """
    terms = [
        soft_cross_entropy(student, teacher.detach() if detach else teacher, temperature) / (len(logits) - 1)
        for student, teacher in permutations(logits, 2)
    ]
    return add_up(terms)


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return τ² CE(student / τ, softmax(teacher / τ)), the mean over clips; both (…, B, K)."""
    wanted = (teacher / temperature).softmax(-1)
    return -(temperature**2) * (wanted * (student / temperature).log_softmax(-1)).sum(-1).mean(-1)
