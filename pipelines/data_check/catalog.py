"""The checks that exist: importing a file of them registers these."""

from ifcar.pipelines.data_check.checks import boxes, sources, times
from ifcar.pipelines.data_check.contract import CHECKS as CHECKS
