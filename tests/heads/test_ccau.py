"""CCAU against loops that are written from its equations, value by value."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ifcar.errors import CacheMismatchError, InputError
from ifcar.heads.ccau import CCAU
from ifcar.heads.ccau_config import CCAUConfig
from ifcar.heads.ccau_parts import CellAttention, ConvGRU, alignment
from ifcar.heads.contract import InstanceBatch
from ifcar.heads.distillation import distillation
from ifcar.testing.batches import JOINED_SPEC, SPEC, random_batch

SMALL = CCAUConfig(streams=("ego", "third"), embedding_dim=6, num_blocks=2)
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}


def built(config: CCAUConfig, losses: tuple[str, ...] = (), seed: int = 0) -> CCAU:
    torch.manual_seed(seed)
    return CCAU.build(config, JOINED_SPEC, 5, losses).double()


def batch(seed: int = 0) -> InstanceBatch:
    found = random_batch(4, JOINED_SPEC, seed).arrays
    return InstanceBatch({k: v.double() for k, v in found.items() if k.endswith("_features")})


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_gru_of_a_cell_resets_before_its_product_and_updates_by_u() -> None:
    torch.manual_seed(0)
    width, gru = 3, ConvGRU(3, 0.0, 4, 2).double()
    with torch.no_grad():
        gru.bias.copy_(torch.randn(3, width))
    for gate in gru.weight:  # orthogonal rows
        torch.testing.assert_close(gate @ gate.T, torch.eye(width, dtype=torch.double), rtol=1e-6, atol=1e-6)
    z = torch.randn(2, 4, 2, width).double()
    found, w, b = gru.eval()(z), gru.weight.tolist(), gru.bias.tolist()
    for clip in range(2):
        for cell in range(2):
            h = [0.0] * width
            for t in range(4):
                x = z[clip, t, cell].tolist()
                u, r = (
                    [sigmoid(sum(w[g][d][k] * v for k, v in enumerate(x + h)) + b[g][d]) for d in range(width)]
                    for g in (0, 1)
                )
                past = [r[d] * h[d] for d in range(width)]
                n = [math.tanh(sum(w[2][d][k] * v for k, v in enumerate(x + past)) + b[2][d]) for d in range(width)]
                h = [(1 - u[d]) * h[d] + u[d] * n[d] for d in range(width)]
                torch.testing.assert_close(found[clip, t, cell].tolist(), h, **EXACT)


def test_what_dropout_leaves_of_a_state_is_carried_on() -> None:
    torch.manual_seed(4)
    gru, z, noise = ConvGRU(3, 0.5, 2, 1).double().train(), torch.randn(2, 2, 1, 3).double(), torch.rand(2, 2, 1, 3)
    gru.dropout.noise = noise
    first, second = gru(z).squeeze(2).unbind(1)
    kept, x = (noise >= 0.5).double().squeeze(2) * 2, z[:, 1, 0]
    assert kept[:, 0].unique().tolist() == [0, 2] and (first[kept[:, 0] == 0] == 0).all()
    of_input, of_state = gru.weight[..., :3].mT, gru.weight[..., 3:].mT
    u, r = ((x @ of_input[g] + first @ of_state[g]).sigmoid() for g in (0, 1))
    n = (x @ of_input[2] + (r * first) @ of_state[2]).tanh()
    torch.testing.assert_close(second, ((1 - u) * first + u * n) * kept[:, 1], **EXACT)


def test_attention_is_the_softmax_over_cells_of_scores_that_see_all_cells() -> None:
    torch.manual_seed(1)
    attention = CellAttention(4, 3, 0.5).double()
    states = torch.randn(2, 3, 4).double()
    first, second, third, fourth = (m for m in attention.modules() if isinstance(m, nn.Linear))
    for clip in range(2):
        row: list[float] = []  # cell after cell, channel after channel
        for cell in range(3):
            row += second(first(states[clip, cell]).clamp(min=0)).tolist()
        alpha = fourth(third(torch.tensor(row, dtype=torch.double)).clamp(min=0)).tolist()
        weights = [math.exp(a / 0.5) for a in alpha]
        torch.testing.assert_close(attention(states)[clip].tolist(), [v / sum(weights) for v in weights], **EXACT)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_alignment_is_equation_1_over_both_directions_of_every_pair(similarity: Any) -> None:
    torch.manual_seed(2)
    streams = [torch.randn(3, 4).double() for _ in range(3)]
    units = streams if similarity == "dot" else [s / s.norm(dim=1, keepdim=True) for s in streams]
    total = 0.0
    for m, own in enumerate(units):
        for n, other in enumerate(units):
            if m != n:
                for i in range(3):
                    scores = [math.exp(float(own[i] @ other[j])) for j in range(3)]
                    total -= math.log(scores[i] / sum(scores))
    pairs = [(streams[0], streams[1]), (streams[0], streams[2]), (streams[1], streams[2])]
    options: dict[str, Any] = {"similarity": similarity, "symmetric_half": False}
    assert float(alignment(pairs, reduction="sum", **options)) == pytest.approx(total, rel=1e-12)
    assert float(alignment(pairs, reduction="mean", **options)) == pytest.approx(total / 3, rel=1e-12)
    half = alignment(pairs, reduction="mean", similarity=similarity, symmetric_half=True)
    assert float(half) == pytest.approx(total / 6, rel=1e-12)


def test_distillation_is_the_mean_over_teachers_of_soft_cross_entropies() -> None:
    torch.manual_seed(3)
    logits = [torch.randn(2, 3).double().requires_grad_() for _ in range(3)]
    total = 0.0
    for s in range(3):
        for t in range(3):
            if s != t:
                for clip in range(2):
                    student, teacher = ([math.exp(v / 2.5) for v in logits[k][clip].tolist()] for k in (s, t))
                    terms = (
                        q / sum(teacher) * math.log(p / sum(student)) for p, q in zip(student, teacher, strict=True)
                    )
                    total -= sum(terms) / 2 / 2
    found = distillation(logits, temperature=2.5, detach=True)
    assert found.item() == pytest.approx(2.5**2 * total, rel=1e-12)


def literal_context(head: CCAU, stream: str, features: Tensor) -> tuple[Tensor, Tensor]:
    """The states and contexts of a stream in evaluation, block by block and cell by cell."""
    net = head.nets[f"of_{stream}"]
    clips, steps, _, height, width = features.shape
    blocks = net.encoder.num_blocks
    states = torch.zeros(clips, blocks, height * width, head.config.embedding_dim, dtype=torch.double)
    for b in range(clips):
        for y in range(height):
            for x in range(width):
                z = torch.zeros(blocks, head.config.embedding_dim, dtype=torch.double)
                for block in range(blocks):
                    own = range(block * steps // blocks, (block + 1) * steps // blocks)
                    rows = [(features[b, t, :, y, x]) / math.sqrt(1 + 1e-5) for t in own]  # statistics of a new norm
                    z[block] = net.encoder.linear(sum(rows) / len(rows)).clamp(min=0)
                states[b, :, y * width + x] = net.gru(z[None, :, None])[0, :, 0]
    contexts = torch.zeros(clips, blocks, head.config.embedding_dim, dtype=torch.double)
    for b in range(clips):
        for block in range(blocks):
            p = net.attention(states[b, block])
            contexts[b, block] = sum(p[cell] * states[b, block, cell] for cell in range(height * width))
    return states, contexts


def test_every_task_is_the_classifier_of_the_last_block_of_its_stream() -> None:
    head, found = built(SMALL).eval(), batch()
    out = head(found)
    assert list(out.tasks) == ["ego/activity", "ego/atomic", "third/activity", "third/atomic"]
    assert torch.equal(out.logits, out.tasks["ego/activity"]) and not out.losses
    assert [task.weight for task in head.tasks] == [1, 10, 1, 10]
    for stream in ("ego", "third"):
        _, contexts = literal_context(head, stream, found.array(f"{stream}/grid_features"))
        normed = contexts[:, -1] / math.sqrt(1 + 1e-5)
        for space, classes in (("activity", 5), ("atomic", 3)):
            name = f"{stream}/{space}"
            hidden = head.hidden[f"of_{stream}-{space}"](normed).clamp(min=0)
            last = head.classifier if name == "ego/activity" else head.classifier.further[f"of_{stream}-{space}"]
            torch.testing.assert_close(out.tasks[name], hidden @ last.weight.T + last.bias, rtol=1e-9, atol=1e-9)
            assert out.tasks[name].shape == (4, classes)


def test_a_stream_scores_the_same_whether_others_are_there_and_whatever_lies_beside_it_in_the_batch() -> None:
    head = built(replace(SMALL, streams=("ego", "third", "audio"), num_blocks=4), ("align",)).eval()
    whole = head(batch())
    for stream in ("ego", "third", "audio"):
        name = f"{stream}/grid_features"
        alone = head(InstanceBatch({name: batch().array(name)[1:2]}))
        assert list(alone.tasks) == [f"{stream}/activity", f"{stream}/atomic"]
        torch.testing.assert_close(alone.logits, whole.tasks[f"{stream}/activity"][1:2], **EXACT)
    with pytest.raises(CacheMismatchError, match="ego/grid_features"):
        head(InstanceBatch({}))


def test_training_aligns_the_blocks_of_all_clips_and_of_released_the_last_one_by_pairs_of_attentions() -> None:
    head, found = built(replace(SMALL, gru_dropout=0.0), ("align",)).eval(), batch()
    contexts = [literal_context(head, s, found.array(f"{s}/grid_features"))[1].flatten(0, 1) for s in ("ego", "third")]
    wanted = alignment([(contexts[0], contexts[1])], similarity="dot", reduction="mean", symmetric_half=False)
    for module in head.modules():  # statistics that are kept, so that the loop can stay as it is
        module.training = module is head
    torch.testing.assert_close(head(found).losses["align"], wanted, rtol=1e-9, atol=1e-9)

    changes = {"streams": SMALL.streams, "embedding_dim": 6, "num_blocks": 2, "projection_dim": 3}
    released = built(replace(CCAU.presets["released"], **changes), ("align",)).eval()
    for module in released.modules():
        module.training = module is released
    ends = []
    for stream in ("ego", "third"):
        states, _ = literal_context(released, stream, found.array(f"{stream}/grid_features"))
        side = released.sides[f"of_{stream}-ego-third"]
        p = side.attention(states[:, -1])
        assert side.attention is not released.nets[f"of_{stream}"].attention
        ends.append(side.projection((p[..., None] * states[:, -1]).sum(1)))
    scores, truth = ends[0] @ ends[1].T, torch.arange(4)
    half = (nn.functional.cross_entropy(scores, truth) + nn.functional.cross_entropy(scores.T, truth)) / 2
    torch.testing.assert_close(released(found).losses["align"], half, rtol=1e-9, atol=1e-9)


def test_cooperative_distillation_takes_its_share_of_the_labels_weight() -> None:
    head = built(replace(SMALL, distil="cooperative", dropout=0.0), ("distil",)).train()
    out = head(batch())
    assert [task.weight for task in head.tasks] == [0.9, 10, 0.9, 10]
    own = [out.tasks["ego/activity"], out.tasks["third/activity"]]
    torch.testing.assert_close(out.losses["distil"], 0.1 * distillation(own, temperature=2.5, detach=True), **EXACT)


def test_a_plain_stream_is_one_linear_layer_and_the_classifier() -> None:
    head = built(replace(SMALL, streams=("ego", "audio"), plain=("audio",))).eval()
    found = batch()
    rows = found.array("audio/grid_features")[..., 0, 0] / math.sqrt(1 + 1e-5)
    context = head.nets["of_audio"].encoder.linear(rows.mean(1))
    hidden = head.hidden["of_audio-activity"](context).relu()
    torch.testing.assert_close(head(found).tasks["audio/activity"], head.classifier.of_task("audio/activity", hidden),
                               rtol=1e-9, atol=1e-9)  # fmt: skip


def test_a_cache_by_itself_is_one_stream_with_the_runs_own_labels() -> None:
    head = CCAU.build(replace(SMALL, streams=()), SPEC, 7)
    out = head.eval()(random_batch(3, SPEC))
    assert out.logits.shape == (3, 7) and [task.name for task in head.tasks] == [""]


@pytest.mark.parametrize(
    ("changes", "losses", "said"),
    [
        ({"num_blocks": 3}, (), "num_blocks is 3; expected a divisor of the 4 feature steps"),
        ({"spaces": ("verb",)}, (), "spaces names 'verb'.*activity, atomic"),
        ({"spaces": ("atomic",)}, (), "expected the run's own, activity"),
        ({"distil": "cooperative"}, (), r"distil is 'cooperative'; expected off.*--aux distil=1"),
        ({"streams": ("ego",)}, ("align",), "the loss 'align' is between streams and there is one, ego"),
        ({"streams": ("ego", "nose")}, (), "streams names 'nose'. This is a join of ego, third, audio"),
        ({"plain": ("ego",)}, ("align",), "expected clip, for streams without blocks"),
    ],
)
def test_what_does_not_fit_is_one_line(changes: dict[str, Any], losses: tuple[str, ...], said: str) -> None:
    with pytest.raises((InputError, CacheMismatchError), match=said):
        built(replace(SMALL, **changes), losses).train()(batch())
