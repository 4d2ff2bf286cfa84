"""Options of ORN, the object relation network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ifcar.config_fields import check_fields
from ifcar.heads.contract import require, require_fraction, require_widths

Feature = Literal["visual", "shape", "class"]
FEATURES: tuple[Feature, ...] = ("visual", "shape", "class")


@dataclass(frozen=True, kw_only=True, slots=True)
class ORNConfig:
    """Options of ORN; defaults are the paper's with ResNet-50 (Baradel et al. 2018, §4), its Table 2 the first six.

    Args:
        heads: which of the two heads score the clip: "object", "activity" or "both".
        objects: "coco", the instances of the cache, or "pixel", the cells of its feature map, averaged to at most
            7 × 7.
        features: what an instance is described by: its pooled features, the code of its mask, its class.
        pairs: the first member of a clique comes from an earlier frame ("inter") or from the frame itself ("intra", all
            pairs, an object with itself included). Released: intra, as its code never reads the earlier frame.
        f: what follows the relations over time: "gru" (Eq. 5), "mlp", r_t = ReLU(W g_t + b), or "avg", the mean of g_t
            over t, classified as it is (an option of the released code).
        clique: members of a clique: 1, h(o_s^j) and h(o_t^k) by themselves; 2, Eq. 4; 3, j of the first frame with
            k ≠ l of the second.
        class_code: how a class enters: "one-hot", o = [b; u; c], or "mlp", o = [u; b; MLP(c)] (released).
        class_dim: width of that MLP.
        mask_dim: width of the mask's MLP, 784 → mask_dim → mask_dim.
        relation_dim: width of h_θ's three layers.
        state_dim: width of r_t.
        activity_dim: width of s_t.
        dropout: in every layer of the MLPs, before its ReLU. Paper: none named; released: 0.5.
        gate: what makes a relation count: "presence" of all its members, or "sums" (released): both clamp(Σ u of the
            first member, 0, 1) and clamp(Σ of everything else, 0, 1), added over the earlier frames and clamped again.
            With "sums" what empty slots hold is not masked.
        state_pool: the states r_t over time: "sum" (paper) or "mean" (released).
        aggregate: the activity head over time: "gru" (Eq. 9) or "mean" of v_t (released).
        logits: of both heads together: their "mean" (paper) or "sum" (released).
        class_reduction: of the object-class loss in a clip: "sum" over the objects of all steps (Eq. 12), or "mean"
            over all slots, of which the empty ones count as class 0 (released); always the mean over clips.
        binary_masks: masks as 0 or 1, at half coverage (released), or as coverage in [0, 1].
        input_norm: standardise each cached channel first, as in `JointConfig`. Released: no.
    """

    heads: Literal["object", "activity", "both"] = "both"
    objects: Literal["coco", "pixel"] = "coco"
    features: tuple[Feature, ...] = FEATURES
    pairs: Literal["inter", "intra"] = "inter"
    f: Literal["gru", "mlp", "avg"] = "gru"
    clique: Literal[1, 2, 3] = 2
    class_code: Literal["one-hot", "mlp"] = "one-hot"
    class_dim: int = 100
    mask_dim: int = 100
    relation_dim: int = 512
    state_dim: int = 256
    activity_dim: int = 512
    dropout: float = 0.0
    gate: Literal["presence", "sums"] = "presence"
    state_pool: Literal["sum", "mean"] = "sum"
    aggregate: Literal["gru", "mean"] = "gru"
    logits: Literal["mean", "sum"] = "mean"
    class_reduction: Literal["sum", "mean"] = "sum"
    binary_masks: bool = False
    input_norm: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        known_once = len(set(self.features)) == len(self.features) and {*self.features} <= {*FEATURES}
        require(bool(self.features) and known_once, "features", self.features, "some of " + ", ".join(FEATURES))
        require_widths(class_dim=self.class_dim, mask_dim=self.mask_dim, relation_dim=self.relation_dim)
        require_widths(state_dim=self.state_dim, activity_dim=self.activity_dim)
        require_fraction(dropout=self.dropout)
        if self.objects == "pixel":
            require(self.features == ("visual",), "features", self.features, "[visual]: a pixel has no mask or class")
        if self.gate == "sums":
            require("visual" in self.features, "features", self.features, "visual among them: gate=sums adds it up")

    @property
    def has_objects(self) -> bool:
        """Whether there is an object head."""
        return self.heads != "activity"

    @property
    def has_activity(self) -> bool:
        """Whether there is an activity head."""
        return self.heads != "object"

    def check_class_loss(self) -> None:
        """Raise InputError when there is nothing that the object-class loss (Eq. 13) could be on."""
        needs = "one with visual instances: the object-class loss (--aux-weight) is on their pooled features"
        require(self.has_objects, "heads", self.heads, needs)
        require(self.objects == "coco", "objects", self.objects, needs)
        require("visual" in self.features, "features", self.features, needs)

    def uses(self, feature: Feature) -> bool:
        """Return whether objects are described by this."""
        return feature in self.features

    def reads(self) -> tuple[str, ...]:
        """Return the cache arrays that these options need."""
        names: list[str] = []
        if self.has_objects and self.objects == "pixel":
            names.append("grid_features")
        elif self.has_objects:
            names += ["instance_features"] if self.uses("visual") else []
            names += ["masks"] if self.uses("shape") else []
            names += ["object_classes"] if self.uses("class") else []
            names.append("categories")
        return (*names, "frame_features") if self.has_activity else tuple(names)

    @classmethod
    def released(cls) -> ORNConfig:
        """Return the config that reproduces the authors' released code."""
        return cls(
            pairs="intra",
            class_code="mlp",
            dropout=0.5,
            gate="sums",
            state_pool="mean",
            aggregate="mean",
            logits="sum",
            class_reduction="mean",
            binary_masks=True,
            input_norm=False,
        )
