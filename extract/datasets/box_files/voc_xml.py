"""Pascal VOC XML: a file a picture, objects with a name and a bndbox xmin, ymin, xmax, ymax.

These are the first and the last pixels of a box, counted from 1, as the challenge's annotation guide has them: 1 to the
picture's width is all of it.

The picture's filename says which frame it is, with its folder where that names a video; else the file's own place.
"""

from __future__ import annotations

from ifcar.errors import InputError
from ifcar.extract.datasets.box_files.contract import BoxFile, BoxForm, FileBoxes, corners, register_form

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@register_form
class VocXml(BoxForm):
    name = "Pascal VOC XML"
    first_pixel = 1

    def owns(self, file: BoxFile) -> bool:
        return file.xml is not None and file.xml.tag == "annotation"

    def read(self, file: BoxFile) -> FileBoxes:
        root, found = file.xml, FileBoxes(numbered="as named")
        assert root is not None
        folder, name = root.findtext("folder", "").strip(), root.findtext("filename", "").strip()
        video, frame = file.picture("/".join(filter(None, (folder, name or file.inside.name))), str(file.path))
        found.add_frame(video, frame)
        found.add_size(video, root.findtext("size/width"), root.findtext("size/height"))
        for place, element in enumerate(root.findall("object")):
            where, box = f"{file.path}: object {place + 1}", element.find("bndbox")
            kind = element.findtext("name", "").strip()
            if not kind or box is None:
                raise InputError(f"{where}: no {'bndbox' if kind else 'name'}; expected a name and a bndbox for each")
            values = [box.findtext(corner) for corner in _CORNERS]
            own = corners(where, values, sides=False, first_pixel=self.first_pixel)
            found.add(video, frame, kind, own, element.findtext("track_id"))
        return found
