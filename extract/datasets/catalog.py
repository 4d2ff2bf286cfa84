"""The datasets that exist: importing one registers it."""

from ifcar.extract.datasets.ava import Ava
from ifcar.extract.datasets.charades import Charades
from ifcar.extract.datasets.contract import DATASETS
from ifcar.extract.datasets.hockey import Hockey
from ifcar.extract.datasets.something_else import SomethingElse
from ifcar.extract.datasets.toybox import Toybox, ToyboxMulti, ToyboxStandard
from ifcar.extract.datasets.volleyball import Volleyball

__all__ = [
    "DATASETS",
    "Ava",
    "Charades",
    "Hockey",
    "SomethingElse",
    "Toybox",
    "ToyboxMulti",
    "ToyboxStandard",
    "Volleyball",
]
