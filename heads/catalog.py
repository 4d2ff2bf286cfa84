"""The heads that exist: importing one registers it."""

from ifcar.heads import (
    activity_specific,
    attentive_probe,
    base,
    cacnf,
    caf,
    ccau,
    i3d,
    i3d_stin_nl,
    lcf,
    nl,
    orn,
    proposal_avg,
    sfi,
    stin,
    stin_nl,
    stlt,
    strg,
    two_stage_transformer,
)
from ifcar.heads.contract import HEADS as HEADS
