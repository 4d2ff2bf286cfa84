"""A figure on a dark page: the same SVG, whose neutral colours follow the reader's colour scheme."""

from __future__ import annotations

PAPER = "#1d2125"  # the page's sheet in the dark, see style.css
LIGHT_INK = "#e9ecef"
INVERTED = {
    "#000000": LIGHT_INK,
    "#222222": LIGHT_INK,
    "#555555": "#a7b0ba",
    "#bbbbbb": "#5a626b",
    "#e3e3e3": "#373d44",
    "#e8e8e8": "#373d44",
    "#0072b2": "#4aa3dc",
    "#d55e00": "#e8853f",
}


def with_dark_mode(svg: bytes) -> bytes:
    """Return an SVG of matplotlib's with a style for dark pages; pictures, and what is written on them, stay.

    The files of a figure are without it: programs that read an SVG for print do not know what a reader prefers.
    """
    rules = [f"path[style*='fill: #ffffff'],use[style*='fill: #ffffff']{{fill:{PAPER} !important}}"]
    rules.append(f"text:not([style*='fill: ']){{fill:{LIGHT_INK}}}")
    for light, dark in INVERTED.items():
        rules.append(f"[style*='fill: {light}']{{fill:{dark} !important}}")
        rules.append(f"[style*='stroke: {light}']{{stroke:{dark} !important}}")
    style = f"<style>@media (prefers-color-scheme: dark){{{''.join(rules)}}}</style></svg>"
    head, _, tail = svg.rpartition(b"</svg>")
    return head + style.encode() + tail
