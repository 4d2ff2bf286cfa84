"""STRG's graphs, convolutions and classification against literal loops over the paper's equations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ifcar.cache.arrays import CacheSpec
from ifcar.errors import InputError
from ifcar.heads.contract import InstanceBatch
from ifcar.heads.graphs import SimilarityGraph, pairwise_iou, spatial_temporal_graphs
from ifcar.heads.joint import JointFeatures
from ifcar.heads.proposal_avg import ProposalAvg
from ifcar.heads.strg import STRG, STRGConfig
from ifcar.testing.batches import SPEC, random_batch
from ifcar.testing.built_heads import build, build_moved
from ifcar.testing.changed_batches import map_batch

EXACT = {"rtol": 0, "atol": 1e-12}


def narrow(config: Any) -> Any:
    joint = replace(config.joint, appearance_dim=8, layout_dim=8, reduction_dim=0)
    return replace(config, joint=joint, **{k: 6 for k in ("hidden_dim", "frame_dim") if getattr(config, k, 0)})


def double_batch(seed: int = 2) -> InstanceBatch:
    return map_batch(random_batch(7, SPEC, seed=seed), lambda _, v: v.double() if v.is_floating_point() else v)


def small_strg(preset: str = "paper", **options: Any) -> tuple[Any, InstanceBatch]:
    head = build_moved(STRG, replace(narrow(STRG.presets[preset]), key_dim=3, **options), SPEC)
    return head.double().eval(), double_batch()


def numbered(joint: JointFeatures) -> list[tuple[int, int, int]]:
    """Return (node number, step, slot) of every node of a clip."""
    num_steps, num_slots = joint.instance_mask.shape[1:]
    return [(t * num_slots + i, t, i) for t in range(num_steps) for i in range(num_slots)]


def test_similarity_graph_equals_equations_1_and_2() -> None:
    head, batch = small_strg()
    joint = head.joint(batch)
    graph = head.reasoning.similarity_graph
    got = graph(joint.features.flatten(1, 2), joint.instance_mask.flatten(1, 2))
    w, w_prime = graph.phi.weight, graph.phi_prime.weight
    for b, (x, real) in enumerate(zip(joint.features, joint.instance_mask, strict=True)):
        for i, t, n in numbered(joint):
            exps = {j: ((w @ x[t, n]) @ (w_prime @ x[s, m])).exp() for j, s, m in numbered(joint) if real[s, m]}
            for j, s, m in numbered(joint):
                linked = bool(real[t, n] and real[s, m])
                expected = exps[j] / sum(exps.values()) if linked else torch.zeros(()).double()
                torch.testing.assert_close(got[b, i, j], expected, **EXACT)


def literal_iou(first: list[float], second: list[float]) -> float:
    """Intersection over union of two (cx, cy, w, h) boxes, one axis at a time."""
    intersection = 1.0
    for axis in (0, 1):
        low = max(box[axis] - box[axis + 2] / 2 for box in (first, second))
        high = min(box[axis] + box[axis + 2] / 2 for box in (first, second))
        intersection *= max(0.0, high - low)
    return intersection / (first[2] * first[3] + second[2] * second[3] - intersection)


def test_spatial_temporal_graphs_equal_equation_3() -> None:
    batch = double_batch()
    boxes, real = batch.boxes[:, ::2], batch.categories[:, ::2] > 0
    boxes[..., 2:] *= 0.5  # so that some pairs do not overlap
    graphs = spatial_temporal_graphs(boxes, real)
    front, back = (graph.dense() for graph in graphs)
    num_steps, num_slots = real.shape[1:]
    expected_front, expected_back = torch.zeros_like(front), torch.zeros_like(back)
    for b in range(len(boxes)):
        for t in range(num_steps - 1):
            sigma = torch.zeros(num_slots, num_slots).double()
            for i in range(num_slots):
                for j in range(num_slots):
                    if real[b, t, i] and real[b, t + 1, j]:
                        sigma[i, j] = literal_iou(boxes[b, t, i].tolist(), boxes[b, t + 1, j].tolist())
            for i in range(num_slots):
                for j in range(num_slots):
                    here, there = t * num_slots + i, (t + 1) * num_slots + j
                    if sigma[i, j] > 0:
                        expected_front[b, here, there] = sigma[i, j] / sigma[i].sum()
                        expected_back[b, there, here] = sigma[i, j] / sigma[:, j].sum()
    torch.testing.assert_close(front, expected_front, **EXACT)
    torch.testing.assert_close(back, expected_back, **EXACT)
    assert (front.sum(-1)[real.flatten(1)] == 0).any()
    assert (front.sum(-1) > 0).any()
    nodes = torch.randn(len(boxes), num_steps * num_slots, 5).double()
    for graph, expected in zip(graphs, (expected_front, expected_back), strict=True):
        torch.testing.assert_close(graph @ nodes, expected @ nodes, **EXACT)


def test_iou_of_two_squares_that_share_a_quarter() -> None:
    first, second = torch.tensor([[0.3, 0.3, 0.2, 0.2]]), torch.tensor([[0.4, 0.4, 0.2, 0.2], [0.9, 0.9, 0.1, 0.1]])
    torch.testing.assert_close(pairwise_iou(first, second), torch.tensor([[1 / 7, 0.0]]))
    assert pairwise_iou(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


def test_boxes_in_empty_slots_reach_no_graph_even_when_not_finite() -> None:
    batch = random_batch(7, SPEC, seed=2)
    boxes, real = batch.boxes[:, ::2], batch.categories[:, ::2] > 0
    filled = torch.where(real[..., None], boxes, torch.nan)
    for clean, noisy in zip(spatial_temporal_graphs(boxes, real), spatial_temporal_graphs(filled, real), strict=True):
        torch.testing.assert_close(clean.dense(), noisy.dense(), rtol=0, atol=0)


def literal_network(network: Any, graphs: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Run a branch on one clip's nodes (M, D), node by node."""
    num_layers = len(network.convolutions)
    for layer, convolution in enumerate(network.convolutions):
        z = []
        for i in range(len(x)):
            z_i = torch.zeros_like(x[i])
            for graph, linear in zip(graphs, convolution.weights, strict=True):
                for j in range(len(x)):
                    z_i = z_i + graph[i, j] * (linear.weight @ x[j])
            if layer < num_layers - 1:
                norm = network.norms[layer]
                z_i = (z_i - z_i.mean()) / (z_i.var(unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias
                z_i = z_i.clamp(min=0)
            z.append(z_i)
        x = torch.stack(z)
    return x


def literal_reasoning(head: Any, joint: JointFeatures) -> torch.Tensor:
    """Return Z (B, T′, N, D) of Eq. 4–5 in the head's branches, without a residual."""
    reasoning, out = head.reasoning, []
    front, back = (g.dense() for g in spatial_temporal_graphs(joint.boxes, joint.instance_mask))
    nodes = joint.features.flatten(1, 2)
    for b in range(len(nodes)):
        z = torch.zeros_like(nodes[b])
        if reasoning.similarity is not None:
            graph = reasoning.similarity_graph(nodes, joint.instance_mask.flatten(1, 2))[b]
            z = z + literal_network(reasoning.similarity, [graph], nodes[b])
        if reasoning.spatial_temporal is not None:
            z = z + literal_network(reasoning.spatial_temporal, [front[b], back[b]], nodes[b])
        out.append(z)
    return torch.stack(out).unflatten(1, joint.instance_mask.shape[1:])


@pytest.mark.slow
@pytest.mark.parametrize("graphs", ["similarity", "spatial-temporal", "joint"])
@pytest.mark.parametrize("residual", [True, False])
def test_logits_on_joint_features_equal_equations_4_and_5(graphs: Any, residual: bool) -> None:
    head, batch = small_strg(graphs=graphs, residual=residual)
    joint = head.joint(batch)
    z = literal_reasoning(head, joint)
    if residual:
        z = z + joint.features
    for b, real in enumerate(joint.instance_mask):
        steps = []
        for t in range(z.shape[1]):
            here = [z[b, t, i] for i in range(z.shape[2]) if real[t, i]]
            steps.append(sum(here) / len(here) if here else torch.zeros(16).double())
        expected = head.classifier(head.hidden[0](torch.cat(steps)).clamp(min=0))
        torch.testing.assert_close(head(batch).logits[b], expected, **EXACT)


def literal_global_feature(frame: Any, frame_features: torch.Tensor) -> torch.Tensor:
    norm = frame.input_norm
    mean = sum(frame_features) / len(frame_features)
    return frame.reduction((mean - norm.running_mean) / (norm.running_var + norm.eps).sqrt())


def test_full_preset_averages_all_nodes_and_appends_the_global_feature() -> None:
    head, batch = small_strg("full")
    joint = head.joint(batch)
    assert joint.features.shape[-1] == 8  # appearance only
    z = literal_reasoning(head, joint)
    for b, real in enumerate(joint.instance_mask):
        nodes = [z[b, t, i] for t in range(z.shape[1]) for i in range(z.shape[2]) if real[t, i]]
        frame = literal_global_feature(head.frame, batch.array("frame_features")[b])
        expected = head.classifier(torch.cat([sum(nodes) / len(nodes), frame]))
        torch.testing.assert_close(head(batch).logits[b], expected, **EXACT)


def test_proposal_average_is_the_mean_of_all_nodes_beside_the_global_feature() -> None:
    head: Any = build_moved(ProposalAvg, narrow(ProposalAvg.presets["paper"]), SPEC).double().eval()
    batch = double_batch()
    joint = head.joint(batch)
    for b, real in enumerate(joint.instance_mask):
        f = joint.features[b]
        nodes = [f[t, i] for t in range(f.shape[0]) for i in range(f.shape[1]) if real[t, i]]
        frame = literal_global_feature(head.frame, batch.array("frame_features")[b])
        expected = head.classifier(torch.cat([sum(nodes) / len(nodes), frame]))
        torch.testing.assert_close(head(batch).logits[b], expected, **EXACT)


def test_non_local_block_acts_on_the_nodes_before_the_graphs() -> None:
    head, batch = small_strg(non_local=True)
    joint = head.joint(batch)
    attended = head.non_local(joint.features.flatten(1, 2), joint.instance_mask.flatten(1, 2))
    attended = attended.unflatten(1, joint.instance_mask.shape[1:])
    assert not torch.allclose(attended, joint.features)
    z = literal_reasoning(head, replace(joint, features=attended)) + attended
    weights = joint.instance_mask[..., None].double()
    steps = (z * weights).sum(2) / weights.sum(2).clamp(min=1)
    expected = head.classifier(head.hidden(steps.flatten(1)))
    torch.testing.assert_close(head(batch).logits, expected, **EXACT)


def test_last_layer_starts_at_zero_so_the_graphs_start_without_a_say() -> None:
    batch = random_batch(5, SPEC)
    far = InstanceBatch({**batch.arrays, "boxes": batch.boxes.flip(0)})  # other graphs, the same appearance
    config = narrow(STRG.presets["full"])
    started, moved = build(STRG, config, SPEC).eval(), build_moved(STRG, config, SPEC).eval()
    torch.testing.assert_close(started(batch).logits, started(far).logits, rtol=0, atol=0)
    assert not torch.allclose(moved(batch).logits, moved(far).logits)


@pytest.mark.parametrize("last_activation", [True, False])
def test_a_relu_after_the_zero_layer_would_keep_the_graphs_silent_for_ever(last_activation: bool) -> None:
    config = replace(narrow(STRGConfig()), last_activation=last_activation)
    head: Any = build(STRG, config, SPEC).train()
    batch, labels = random_batch(16, SPEC), torch.arange(16) % 5
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(head(batch).logits, labels).backward()
        optimizer.step()
    moved = [float(p.grad.abs().sum()) > 0 for p in head.reasoning.parameters()]
    assert not any(moved) if last_activation else all(moved)


def test_graphs_option_builds_only_what_it_names() -> None:
    similarity = build(STRG, replace(narrow(STRGConfig()), graphs="similarity"), SPEC)
    spatial = build(STRG, replace(narrow(STRGConfig()), graphs="spatial-temporal"), SPEC)
    assert not any("spatial_temporal" in name for name, _ in similarity.named_parameters())
    assert not any("similarity" in name for name, _ in spatial.named_parameters())


def test_presets_have_the_papers_dimensions() -> None:
    spec = CacheSpec.standard(num_frames=8, num_steps=4, num_instances=4, channels=2048, pooled_size=3)
    head: Any = STRG(STRG.presets["paper"], spec, 174)
    assert head.reasoning.similarity_graph.phi.weight.shape == (1024, 1024)
    for network, num_graphs in ((head.reasoning.similarity, 1), (head.reasoning.spatial_temporal, 2)):
        shapes = [[w.weight.shape for w in c.weights] for c in network.convolutions]
        assert shapes == [[(1024, 1024)] * num_graphs] * 3
        assert len(network.norms) == 2
    assert head.hidden[0].weight.shape == (1024, 4 * 1024)
    assert head.frame is None

    spec = CacheSpec.standard(num_frames=32, num_steps=16, num_instances=10, channels=2048, pooled_size=1)
    full: Any = STRG(STRG.presets["full"], spec, 174)
    assert full.joint.appearance.embed.weight.shape == (512, 2048)
    assert full.joint.appearance.reduction is None
    assert full.reasoning.similarity_graph.phi.weight.shape == (512, 512)
    assert full.frame.reduction.weight.shape == (512, 2048)
    assert full.classifier.weight.shape == (174, 512 + 512)
    assert full.dropout.p == 0.3
    average: Any = ProposalAvg(ProposalAvg.presets["paper"], spec, 174)
    assert average.classifier.weight.shape == (174, 512 + 512)
    assert average.dropout.p == 0.3


def test_unknown_graphs_are_refused() -> None:
    with pytest.raises(InputError, match="graphs is 'spatial'; expected one of similarity, spatial-temporal, joint"):
        STRGConfig(graphs="spatial")  # type: ignore[arg-type]


def test_similarity_graph_of_a_clip_without_instances_is_zero_and_passes_no_nan() -> None:
    graph = SimilarityGraph(4)
    nodes = torch.zeros(2, 3, 4, requires_grad=True)
    out = graph(nodes, torch.zeros(2, 3, dtype=torch.bool))
    out.sum().backward()
    assert not out.any()
    assert torch.isfinite(nodes.grad).all()
