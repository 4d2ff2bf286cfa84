"""What a fine-tuning run works on: the dataset, the network, and the dimensions of the features between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ifcar.cache.arrays import FEATURES, GRID_FEATURES, CacheSpec
from ifcar.cache.protocols import ProtocolTable
from ifcar.cache.schema import Split, Status, fingerprint
from ifcar.errors import CacheMismatchError, InputError, nearest_of
from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.fold import channels_last
from ifcar.extract.backbones.reduced import ReducedBackbone
from ifcar.extract.backbones.spec import BackboneSpec
from ifcar.extract.tuned import TunedFacts
from ifcar.extract.views import ViewPolicy
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import Head
from ifcar.pipelines.configs import to_plain
from ifcar.pipelines.extraction.backbones import load_backbone, weights_to_be_had
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.defaults import default_weights
from ifcar.pipelines.extraction.preparation import cache_spec, provenance_of, view_policy
from ifcar.pipelines.extraction.sources import Source, read_source
from ifcar.pipelines.feed.boxes import no_boxes
from ifcar.pipelines.finetune.distributed import Group
from ifcar.pipelines.finetune.model import LiveModel, freeze
from ifcar.pipelines.finetune.start import check_base, check_live, extraction_of, trainable_backbone
from ifcar.pipelines.progress import Progress
from ifcar.pipelines.runs.config import RunConfig
from ifcar.pipelines.runs.data import RunData, protocol_digest
from ifcar.pipelines.runs.finished import open_run
from ifcar.pipelines.runs.heads import build_head
from ifcar.pipelines.runs.live import LiveConfig
from ifcar.pipelines.runs.resolve import choose_protocol, chosen_labels, head_arrays, head_options
from ifcar.pipelines.runs.weights import load_tensors

NEW_REDUCTION = 512  # channels, in both papers


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a fine-tuning run works on.

    Args:
        config: resolved.
        live: its live part.
        extraction: the options with which `ifcar extract` makes the cache of the trained backbone, but for its weights.
        source: the dataset.
        protocol: the splits and labels.
        policy: of plain views.
        spec: the dimensions of that cache.
        model: backbone and head, as they start.
    """

    config: RunConfig
    live: LiveConfig
    extraction: ExtractConfig
    source: Source
    protocol: ProtocolTable
    policy: ViewPolicy
    spec: CacheSpec
    model: LiveModel

    def training_policy(self) -> ViewPolicy:
        """Return how the views of training are sampled."""
        data = self.live.data
        return replace(
            self.policy,
            cropping=data.cropping,
            min_scale=data.min_scale,
            flip=data.flip,
            seed=self.config.seed,
        )

    def facts(self) -> TunedFacts:
        """Return what the backbone file says of itself."""
        spec = self.model.backbone.spec
        return TunedFacts(
            backbone=spec.name,
            spatial_stride=spec.spatial_stride,
            layer=spec.layer,
            reduction=spec.reduction,
            num_frames=self.policy.frames,
            facts=spec.facts,
            config=to_plain(spec.config),
            trained_on={
                "dataset": self.live.data.dataset,
                "protocol": self.protocol.name,
                "head": self.config.head,
                "weights": self.live.weights_identity,
            },
        )

    def run_data(self, weights: str, notes: Sequence[str]) -> RunData:
        """Return the facts about the run's data, with the identity of the cache that `weights` make."""
        spec = self.model.backbone.spec
        provenance = provenance_of(self.extraction, self.source, self.policy, spec, weights)
        return RunData.of_protocol(self.spec, provenance, self.protocol, notes)

    def fingerprint(self, data: RunData) -> str:
        """Return the fingerprint of the cache of this data."""
        return fingerprint(self.spec, data.identity, self.source.clip_ids(), self.policy.views)


def open_setting(config: RunConfig, group: Group, progress: Progress) -> Setting:
    """Read the dataset and build backbone and head.

    Raises:
        InputError, MissingDataError: something does not exist or does not fit.
        CacheMismatchError: the base run belongs to other weights or data.
    """
    live = check_live(config)
    check_base(config, live)
    kind = HEADS.get(config.head)
    reads = head_arrays(config)
    if not any(array.name in reads for array in FEATURES):
        raise InputError(f"head {config.head!r} with these options reads nothing of a backbone; there is none to train")
    extraction = extraction_of(live, grid=GRID_FEATURES.name in reads)
    facts = trainable_backbone(extraction)
    source = _read_source(extraction, group, progress)
    protocol = _protocol(source, config.protocol, config.labels)
    clips = [source.clips[number] for number in protocol.clips(Split.TRAIN)]
    policy = view_policy(extraction)
    spec = cache_spec(extraction, policy, facts, source.arrays())
    kind.check_reads(head_options(config), spec, config.aux_weights)
    boxes = "" if source.proposals is None else source.proposals.digest
    if (live.base is not None or live.boxes_identity) and boxes != live.boxes_identity:
        raise CacheMismatchError(
            f"{live.base or extraction.boxes}: made with boxes {live.boxes_identity[:12] or 'of the dataset'}, but "
            f"--boxes gives {boxes[:12] or 'none'}; name the same file"
        )
    if spec.reads_instances(reads) and not any(source.num_tracks(clip.clip_id) for clip in clips):
        raise no_boxes(source.dataset.root, config.head, f"{len(clips)} training clips")
    backbone, identity = _build_backbone(live, facts, extraction, config.seed, progress)
    spec = spec.resized(C=backbone.spec.channels)
    head = build_head(config, spec, len(protocol.labels.classes))
    if live.base is not None:
        _load_base(live, spec, source, head, protocol)
    live = replace(live, weights_identity=identity, boxes_identity=boxes, reduction=backbone.spec.reduction)
    freeze(backbone, live.freeze_to, norms=live.batch_norm == "frozen")
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        raise InputError(f"freeze_to {live.freeze_to} leaves nothing of the backbone to train; use `ifcar fit-head`")
    backbone.recomputes = live.recompute
    model = LiveModel(
        backbone,
        head,
        reads,
        spec,
        extraction.pooled,
        keeps_statistics=live.batch_norm == "frozen",
        precision=config.schedule.precision,
    )
    status = np.full(len(source.clips) * policy.views, Status.DONE, np.uint8)
    digest = protocol_digest(status, protocol)
    return Setting(
        config=replace(
            config, live=live, protocol=protocol.name, labels=chosen_labels(protocol), protocol_digest=digest
        ),
        live=live,
        extraction=extraction,
        source=source,
        protocol=protocol,
        policy=policy,
        spec=spec,
        model=channels_last(model.to(group.device)),
    )


def _read_source(extraction: ExtractConfig, group: Group, progress: Progress) -> Source:
    """Read the dataset in process 0 first, which may have to render it."""
    read: list[Source] = []
    group.decide(lambda: read.append(read_source(extraction, progress, needs_pixels=True)))
    return read[0] if read else read_source(extraction, progress, needs_pixels=True)


def _protocol(source: Source, name: str, labels: str | None) -> ProtocolTable:
    root, known = source.dataset.root, {protocol.name: protocol for protocol in source.protocols}
    name = name or choose_protocol(list(known), root)
    if name not in known:
        raise InputError(f"{root}: no protocol {name!r}{nearest_of(name, known)}")
    return known[name].only(labels)


def _build_backbone(
    live: LiveConfig, spec: BackboneSpec, extraction: ExtractConfig, seed: int, progress: Progress
) -> tuple[Backbone, str]:
    """Return the backbone, with a reduction where one is asked for, and the identity of its weights."""
    weights = extraction.weights or weights_to_be_had(spec, default_weights(live.data.dataset, spec.name), progress)
    backbone, identity = load_backbone(spec, weights, progress)
    assert backbone is not None
    if live.weights_identity and live.weights_identity != identity:
        raise CacheMismatchError(
            f"{live.base or weights}: begins with {spec.name} weights {live.weights_identity}, but {weights} are "
            f"{identity}; name its own with --weights"
        )
    wanted = (spec.reduction or NEW_REDUCTION) if live.reduction is None else live.reduction
    if spec.reduction and wanted != spec.reduction:
        raise InputError(
            f"{extraction.weights}: has a reduction to {spec.reduction} channels, not {wanted}; leave --reduction out"
        )
    if wanted and not spec.reduction:
        backbone = ReducedBackbone(backbone, wanted)
        backbone.draw_reduction(seed)
    return backbone, identity


def _load_base(live: LiveConfig, spec: CacheSpec, source: Source, head: Head, protocol: ProtocolTable) -> None:
    """Put the base run's weights into the head, which must have been trained on features like these."""
    assert live.base is not None
    run = open_run(live.base)
    data = run.data()
    for symbol, field in (("T", "num_frames"), ("T′", "num_steps"), ("N", "num_instances"), ("C", "channels")):
        trained, found = getattr(data.spec, field), getattr(spec, field)
        if trained != found:
            raise CacheMismatchError(
                f"{live.base}: its head was trained on {symbol} = {trained}, but these videos and this backbone give "
                f"{symbol} = {found}; name the run's own weights and dataset"
            )
    if data.spec.pooled_size != spec.pooled_size or len(data.classes) != len(protocol.labels.classes):
        raise CacheMismatchError(f"{live.base}: trained with another pooled size or number of classes; train it anew")
    if data.identity["dataset"]["annotations"] != source.digest:
        raise CacheMismatchError(
            f"{source.dataset.root}: its annotations are not those that {live.base} was trained on; name the run's "
            "dataset with --data-root, or extract and train again"
        )
    there = sorted({clip.camera for clip in source.clips} - {""})
    clips = len(protocol.clips(Split.TRAIN))
    if len(there) > 1 and clips != data.num_train:
        raise CacheMismatchError(
            f"{live.base}: its head was trained on {data.num_train:,} clips, and the cameras {', '.join(there)} have "
            f"{clips:,}; name those of its cache with --cameras"
        )
    head.load_state_dict(load_tensors(live.base / "model.safetensors"))
