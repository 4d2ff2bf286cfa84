"""The forms of box files that exist: importing one registers it."""

from ifcar.extract.datasets.box_files.coco_json import CocoJson
from ifcar.extract.datasets.box_files.contract import FORMS
from ifcar.extract.datasets.box_files.cvat_xml import CvatXml
from ifcar.extract.datasets.box_files.number_rows import MotText, YoloText
from ifcar.extract.datasets.box_files.something_else_json import SomethingElseJson
from ifcar.extract.datasets.box_files.tables import CsvTable, ParquetTable
from ifcar.extract.datasets.box_files.via3_json import Via3Json
from ifcar.extract.datasets.box_files.via_json import ViaJson
from ifcar.extract.datasets.box_files.voc_xml import VocXml

__all__ = [
    "FORMS",
    "CocoJson",
    "CsvTable",
    "CvatXml",
    "MotText",
    "ParquetTable",
    "SomethingElseJson",
    "Via3Json",
    "ViaJson",
    "VocXml",
    "YoloText",
]
