"""The datasets that exist: importing one registers it."""

import ifcar.extract.datasets.ava
import ifcar.extract.datasets.charades
import ifcar.extract.datasets.epic_kitchens
import ifcar.extract.datasets.folder
import ifcar.extract.datasets.hockey
import ifcar.extract.datasets.homage
import ifcar.extract.datasets.something_else
import ifcar.extract.datasets.something_something_v1
import ifcar.extract.datasets.something_something_v2
import ifcar.extract.datasets.toybox
import ifcar.extract.datasets.toybox_views
import ifcar.extract.datasets.vlog
import ifcar.extract.datasets.volleyball  # noqa: F401  (these imports fill the registry)
from ifcar.extract.datasets.contract import DATASETS

__all__ = ["DATASETS"]
