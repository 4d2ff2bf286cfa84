"""The datasets that exist: importing one registers it."""

from ifcar.extract.datasets.ava import Ava
from ifcar.extract.datasets.charades import Charades
from ifcar.extract.datasets.contract import DATASETS
from ifcar.extract.datasets.epic_kitchens import EpicKitchens
from ifcar.extract.datasets.folder import Folder
from ifcar.extract.datasets.hockey import Hockey
from ifcar.extract.datasets.homage import Homage
from ifcar.extract.datasets.something_else import SomethingElse
from ifcar.extract.datasets.something_something_v1 import SomethingSomethingV1
from ifcar.extract.datasets.something_something_v2 import SomethingSomethingV2
from ifcar.extract.datasets.toybox import Toybox, ToyboxContact, ToyboxMulti, ToyboxRelational, ToyboxStandard
from ifcar.extract.datasets.toybox_views import ToyboxViews, ToyboxViewsDesign, ToyboxViewsPrivate
from ifcar.extract.datasets.vlog import Vlog
from ifcar.extract.datasets.volleyball import Volleyball

__all__ = [
    "DATASETS",
    "Ava",
    "Charades",
    "EpicKitchens",
    "Folder",
    "Hockey",
    "Homage",
    "SomethingElse",
    "SomethingSomethingV1",
    "SomethingSomethingV2",
    "Toybox",
    "ToyboxContact",
    "ToyboxMulti",
    "ToyboxRelational",
    "ToyboxStandard",
    "ToyboxViews",
    "ToyboxViewsDesign",
    "ToyboxViewsPrivate",
    "Vlog",
    "Volleyball",
]
