"""The heads that exist: importing one registers it."""

from ifcar.heads.base import Base
from ifcar.heads.contract import HEADS
from ifcar.heads.i3d import I3D
from ifcar.heads.sfi import SFI

__all__ = ["HEADS", "I3D", "SFI", "Base"]
