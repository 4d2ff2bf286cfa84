"""Activity-specific features against the paper's equations, written out position by position and class by class."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from ifcar.cache.arrays import CacheSpec
from ifcar.errors import CacheMismatchError, InputError
from ifcar.heads.activity_specific import ActivitySpecific, ActivitySpecificConfig
from ifcar.heads.contract import InstanceBatch
from ifcar.heads.observations import Observations
from ifcar.heads.two_stage_transformer import TwoStageTransformer, TwoStageTransformerConfig
from ifcar.testing.batches import LAYOUT_SPEC, SPEC, random_batch
from ifcar.testing.built_heads import build_moved
from ifcar.testing.changed_batches import in_double

EXACT: dict[str, Any] = {"rtol": 0, "atol": 1e-9}
LABELS = torch.tensor([[1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 1, 1, 0, 0], [1, 1, 0, 0, 1], [1, 0, 0, 0, 0]])
SMALL: dict[str, Any] = {"num_observations": 3, "num_groups": 2, "descriptor_dim": 8}


def small_head(**options: Any) -> tuple[Any, InstanceBatch]:
    head = build_moved(ActivitySpecific, ActivitySpecificConfig(**{**SMALL, **options}), SPEC).double().eval()
    head.learn_labels(LABELS)
    for norm in (m for m in head.modules() if hasattr(m, "running_var")):
        norm.running_mean.normal_(generator=torch.Generator().manual_seed(3))
        norm.running_var.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(4))
    return head, in_double(random_batch(5, SPEC, seed=2))


def positions_of(batch: InstanceBatch, clip: int, features: str) -> list[Tensor]:
    """The real positions of a clip, one by one, in the order of the paper's TWH."""
    out = []
    if features == "grid":
        for step in batch.array("grid_features")[clip]:
            out += [step[:, y, x] for y in range(step.shape[1]) for x in range(step.shape[2])]
        return out
    for t, step in enumerate(batch.array("instance_features")[clip]):
        for slot, roi in enumerate(step):
            if batch.categories[clip, 2 * t, slot] > 0:
                out += [roi[:, y, x] for y in range(roi.shape[1]) for x in range(roi.shape[2])]
    return out


def standardised(positions: Sequence[Tensor], norm: Any) -> list[Tensor]:
    return [(f - norm.running_mean) / (norm.running_var + norm.eps).sqrt() for f in positions]


def softmax(scores: Sequence[Tensor]) -> list[Tensor]:
    exps = [score.exp() for score in scores]
    return [e / sum(exps) for e in exps]


def grouped(weights: Tensor, f: Tensor) -> Tensor:
    """Eq. 13: each group of channels through its own matrix, concatenated."""
    size = weights.shape[2]
    return torch.cat([w @ f[number * size : (number + 1) * size] for number, w in enumerate(weights)])


def literal_observations(module: Any, f: Sequence[Tensor], query: str) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Eq. 2–4 and 12."""
    observations, attentions = [], []
    for k in range(len(module.alpha.weight)):
        asked = [grouped(module.beta.weight[k], g) for g in f]
        q = asked[-1] if query == "last" else sum(asked) / len(asked)
        attention = softmax([q @ grouped(module.gamma.weight[k], g) for g in f])
        values = [grouped(module.alpha.weight[k], g) for g in f]
        observations.append(sum(a * v for a, v in zip(attention, values, strict=True)))
        attentions.append(attention)
    return observations, attentions


def literal_outputs(classifier: Any, f_a: Sequence[Tensor]) -> list[list[Tensor]]:
    """Eq. 6–10, before the sigmoid."""

    def scores(module: Any, rows: Sequence[Tensor]) -> list[Tensor]:
        own = len(module.weight) > 1
        return [module.weight[i if own else 0] @ row + module.bias[i] for i, row in enumerate(rows)]

    outputs = [scores(classifier.score, f_a)]
    if classifier.correlation is not None:
        beta, gamma = classifier.correlation.beta.weight, classifier.correlation.gamma.weight
        f_ac = []
        for j, f_j in enumerate(f_a):
            attn_c = softmax([(beta @ f_j) @ (gamma @ f_k) for f_k in f_a])
            n_j = int(LABELS[:, j].sum())
            together = [int((LABELS[:, j] * LABELS[:, k]).sum()) for k in range(len(f_a))]
            mask = [n_jk / n_j if n_j else 0 for n_jk in together]
            f_ac.append(sum((a + m) * f_k for a, m, f_k in zip(attn_c, mask, f_a, strict=True)))
        outputs.append(scores(classifier.correlated_score, f_ac))
    return outputs


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"query": "mean"},
        {"num_groups": 1},
        {"own_scores": True},
        {"correlation": False},
        {"features": "instances", "query": "mean"},
    ],
)
def test_logits_equal_the_equations_written_out(options: dict[str, Any]) -> None:
    head, batch = small_head(**options)
    out = head(batch)
    maps = head.activity_maps(batch)
    for b in range(5):
        f = standardised(positions_of(batch, b, head.config.features), head.observations.input_norm)
        observations, attention_o = literal_observations(head.observations, f, head.config.query)
        f_a, expected_maps = [], []
        for query in head.classifier.combination.queries.weight:
            attention_a = softmax([query @ o for o in observations])
            f_a.append(sum(a * o for a, o in zip(attention_a, observations, strict=True)))
            by_position = zip(*attention_o, strict=True)
            expected_maps.append([sum(x * y for x, y in zip(attention_a, at, strict=True)) for at in by_position])
        outputs = literal_outputs(head.classifier, f_a)
        expected = torch.stack([torch.stack(row) for row in outputs])
        torch.testing.assert_close(out.trained()[b], expected, **EXACT)
        torch.testing.assert_close(out.logits[b], expected.mean(0), **EXACT)
        real = maps[b][:, maps[b].sum(0) > 0]
        torch.testing.assert_close(real, torch.stack([torch.stack(row) for row in expected_maps]), **EXACT)


def test_observations_of_features_far_from_zero_keep_their_accuracy() -> None:
    """At |μ| = 1000 σ in float32 they are within 1e-5 of float64's, standardised by known statistics."""
    generator = torch.Generator().manual_seed(0)
    positions = 1000 + torch.randn(2, 40, 32, generator=generator)
    mask = torch.ones(2, 40, dtype=torch.bool)
    torch.manual_seed(0)
    single = Observations(4, 2, 32, 16, "last", True).eval()
    assert single.input_norm is not None
    single.input_norm.running_mean.fill_(1000)
    exact = copy.deepcopy(single).double()
    for found, expected in zip(single(positions, mask), exact(positions.double(), mask), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * float(expected.detach().abs().max()))


def test_without_attention_each_descriptor_is_its_own_map_of_the_average() -> None:
    head, batch = small_head(specific=False)
    outputs = head(batch).trained()
    for b in range(5):
        f = standardised(positions_of(batch, b, "grid"), head.input_norm)
        average = sum(f[1:], f[0]) / len(f)
        f_a = [grouped(weight, average) for weight in head.classifier.shared.weight]
        expected = torch.stack([torch.stack(row) for row in literal_outputs(head.classifier, f_a)])
        torch.testing.assert_close(outputs[b], expected, **EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("features", ["grid", "instances"])
def test_two_stage_transformer_equals_its_formula_written_out(features: Any) -> None:
    config = TwoStageTransformerConfig(features=features, num_groups=2, key_dim=8)
    head: Any = build_moved(TwoStageTransformer, config, SPEC).double().eval()
    batch = in_double(random_batch(2, SPEC, seed=2))
    if features == "instances":
        assert (batch.categories == 0).any(dim=2).any(dim=1).all()  # each clip has a slot without an instance
    logits = head(batch).logits
    for b in range(2):
        f = standardised(positions_of(batch, b, features), head.input_norm)
        for layer in (head.first, head.second):
            keys = [grouped(layer.gamma.weight[0], g) for g in f]
            asked = [grouped(layer.beta.weight[0], g) for g in f]
            weights = [softmax([query @ key for key in keys]) for query in asked]
            f = [sum(a * g for a, g in zip(row, f, strict=True)) for row in weights]
        torch.testing.assert_close(logits[b], head.classifier(sum(f) / len(f)), **EXACT)


def test_labels_that_go_together_are_counted_from_the_training_part_and_saved_with_the_head() -> None:
    head, _ = small_head()
    counted = head.state_dict()["classifier.correlation.co_occurrence"]
    expected = [  # N_jk / N_j of LABELS, counted by hand; class 3 has no clip
        [1, 2 / 4, 1 / 4, 0, 1 / 4],
        [2 / 3, 1, 1 / 3, 0, 1 / 3],
        [1 / 2, 1 / 2, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [1, 1, 0, 0, 1],
    ]
    torch.testing.assert_close(counted, torch.tensor(expected, dtype=torch.float64), **EXACT)


@pytest.mark.slow
def test_descriptors_differ_between_activities_and_gather_from_where_their_attention_lies() -> None:
    """Attention learns the one place that tells a class, whatever the rest of the clip holds."""
    torch.manual_seed(0)
    spec = CacheSpec.standard(num_frames=4, num_steps=2, num_instances=1, channels=8, pooled_size=1, grid_size=(3, 3))
    config = ActivitySpecificConfig(num_observations=8, num_groups=1, descriptor_dim=8, query="mean", dropout=0.0)
    head: Any = ActivitySpecific(config, spec, 2)
    labels = (torch.rand(256, 2) < 0.5).float()
    places = torch.stack([torch.randperm(18)[:2] for _ in range(256)])  # of the two activities of each clip
    features = 0.3 * torch.randn(256, 18, 8)
    for activity in range(2):
        features[torch.arange(256), places[:, activity], activity] += 6 * labels[:, activity]
    grid = features.view(256, 2, 3, 3, 8).permute(0, 1, 4, 2, 3)
    batch = InstanceBatch({"grid_features": grid})
    head.learn_labels(labels)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        outputs = head(batch).trained()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs, labels[:, None].expand_as(outputs))
        loss.backward()
        optimizer.step()
    assert ((head(batch).logits > 0) == (labels > 0)).float().mean() > 0.95
    both = (labels.sum(1) == 2).nonzero().flatten()
    maps = head.eval().activity_maps(batch)
    for activity in range(2):
        own, other = (maps[both, activity, places[both, a]].mean() for a in (activity, 1 - activity))
        assert own > other


@pytest.mark.parametrize(
    ("num_groups", "num_observations", "num_classes", "millions"),
    [  # Tables 3a, 3b and 4
        (1, 64, 157, 50.4),
        (8, 64, 157, 6.3),
        (32, 64, 157, 1.6),
        (64, 64, 157, 0.8),
        (32, 16, 157, 0.4),
        (32, 32, 157, 0.8),
        (32, 128, 157, 3.2),
        (32, 64, 1024, 1.7),
    ],
)
def test_parameters_are_those_of_the_papers_tables(
    num_groups: int, num_observations: int, num_classes: int, millions: float
) -> None:
    spec = CacheSpec.standard(
        num_frames=32, num_steps=4, num_instances=1, channels=2048, pooled_size=1, grid_size=(7, 7)
    )
    config = ActivitySpecificConfig(num_groups=num_groups, num_observations=num_observations)
    with torch.device("meta"):
        head = ActivitySpecific(config, spec, num_classes)
    assert round(sum(p.numel() for p in head.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"descriptor_dim": 100}, "descriptor_dim is 100; expected a multiple of num_groups, 32"),
        ({"features": "instances"}, "query is 'last'; expected mean with features=instances"),
        ({"features": "frames"}, "features is 'frames'; expected one of grid, instances"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ActivitySpecificConfig(**options)


def test_a_cache_without_the_feature_map_or_with_other_channels_says_what_to_do() -> None:
    with pytest.raises(CacheMismatchError, match=r"no array 'grid_features'.* --grid"):
        ActivitySpecific(ActivitySpecificConfig(), LAYOUT_SPEC, 3)
    with pytest.raises(InputError, match="num_groups is 32, but the cache has 6 channels"):
        ActivitySpecific(ActivitySpecificConfig(), SPEC, 3)
