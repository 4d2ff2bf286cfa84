"""The checks that exist: importing one registers it."""

from ifcar.pipelines.data_check.checks import (
    doubled_source,
    empty_source,
    ends_early,
    frame_rate,
    in_shares,
    jumps,
    missing_frames,
    outside_picture,
    past_end,
    stated_size,
    unreadable,
    without_boxes,
)
from ifcar.pipelines.data_check.contract import CHECKS as CHECKS
