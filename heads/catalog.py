"""The heads that exist: importing one registers it."""

from ifcar.heads.activity_specific import ActivitySpecific
from ifcar.heads.attentive_probe import AttentiveProbe
from ifcar.heads.base import Base
from ifcar.heads.cacnf import CACNF
from ifcar.heads.caf import CAF
from ifcar.heads.ccau import CCAU
from ifcar.heads.contract import HEADS
from ifcar.heads.i3d import I3D
from ifcar.heads.i3d_stin_nl import I3DSTINNL
from ifcar.heads.lcf import LCF
from ifcar.heads.nl import NL
from ifcar.heads.orn import ORN
from ifcar.heads.proposal_avg import ProposalAvg
from ifcar.heads.sfi import SFI
from ifcar.heads.stin import STIN
from ifcar.heads.stin_nl import STINNL
from ifcar.heads.stlt import STLT
from ifcar.heads.strg import STRG
from ifcar.heads.two_stage_transformer import TwoStageTransformer

__all__ = [
    "CACNF",
    "CAF",
    "CCAU",
    "HEADS",
    "I3D",
    "I3DSTINNL",
    "LCF",
    "NL",
    "ORN",
    "SFI",
    "STIN",
    "STINNL",
    "STLT",
    "STRG",
    "ActivitySpecific",
    "AttentiveProbe",
    "Base",
    "ProposalAvg",
    "TwoStageTransformer",
]
