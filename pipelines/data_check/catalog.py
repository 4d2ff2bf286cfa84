"""The checks that exist: importing one registers it."""

from ifcar.pipelines.data_check.checks.doubled_source import DoubledSource
from ifcar.pipelines.data_check.checks.empty_source import EmptySource
from ifcar.pipelines.data_check.checks.ends_early import EndsEarly
from ifcar.pipelines.data_check.checks.frame_rate import FrameRate
from ifcar.pipelines.data_check.checks.in_shares import InShares
from ifcar.pipelines.data_check.checks.jumps import Jumps
from ifcar.pipelines.data_check.checks.missing_frames import MissingFrames
from ifcar.pipelines.data_check.checks.outside_picture import OutsidePicture
from ifcar.pipelines.data_check.checks.past_end import PastEnd
from ifcar.pipelines.data_check.checks.stated_size import StatedSize
from ifcar.pipelines.data_check.checks.unreadable import Unreadable
from ifcar.pipelines.data_check.checks.without_boxes import WithoutBoxes
from ifcar.pipelines.data_check.contract import CHECKS

__all__ = [
    "CHECKS",
    "DoubledSource",
    "EmptySource",
    "EndsEarly",
    "FrameRate",
    "InShares",
    "Jumps",
    "MissingFrames",
    "OutsidePicture",
    "PastEnd",
    "StatedSize",
    "Unreadable",
    "WithoutBoxes",
]
