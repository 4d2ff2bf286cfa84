"""The forms of box files that exist: importing one registers it."""

import ifcar.extract.datasets.box_files.coco_json
import ifcar.extract.datasets.box_files.cvat_xml
import ifcar.extract.datasets.box_files.number_rows
import ifcar.extract.datasets.box_files.something_else_json
import ifcar.extract.datasets.box_files.tables
import ifcar.extract.datasets.box_files.via3_json
import ifcar.extract.datasets.box_files.via_json
import ifcar.extract.datasets.box_files.voc_xml  # noqa: F401  (these imports fill the registry)
from ifcar.extract.datasets.box_files.contract import FORMS

__all__ = ["FORMS"]
