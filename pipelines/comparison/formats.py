"""A comparison as a table to read (terminal, Markdown, LaTeX) and as numbers (CSV)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ifcar.cache.durable import write_atomic
from ifcar.pipelines.comparison.columns import columns_of, metric_of, number_columns, title_of
from ifcar.pipelines.comparison.store import Comparison

LATEX_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "⊕": r"$\oplus$",
    "λ": r"$\lambda$",
    "Δ": r"$\Delta$",
    "<": r"$<$",
    ">": r"$>$",
}


def caption(comparison: Comparison) -> str:
    """Return what the columns mean, in one paragraph."""
    replicates = sorted({len(row.seeds) for row in comparison.rows})
    runs = " or ".join(map(str, replicates)) or "0"
    measure = {"top1": "accuracy", "map": "mAP"}.get(metric_of(comparison), "accuracy or mAP")
    text = (
        f"{comparison.title or comparison.name}. Test {measure} in percent on {comparison.dataset}: mean ± sample "
        f"standard deviation over {runs} runs (seeds, and few-shot draws where there are several); in brackets the "
        "95 % bootstrap interval over clips of the mean."
    )
    if comparison.baseline:
        test = {"bootstrap": "paired bootstrap over clips", "mcnemar": "exact McNemar test"}[comparison.paired_test]
        text += (
            f" Δ: difference in {title_of(comparison)} points to {comparison.baseline}, its 95 % interval over clips, "
            f"and p of a {test}, corrected by Holm's method over all comparisons of this table. Intervals and p speak "
            "of clips, with the trained models as they are; the deviation speaks of training again."
        )
    if any(row.published for row in comparison.rows):
        text += " Published: figures of the paper on the same data and split."
    return text


def cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the table's header and rows as text."""
    columns = columns_of(comparison)
    return [c.title for c in columns], [[c.text(row) for c in columns] for row in comparison.rows]


def markdown(comparison: Comparison) -> str:
    """Return the table as Markdown, with its caption and notes."""
    header, rows = cells(comparison)
    lines = [_markdown_row(header), "|" + "---|" * len(header), *(_markdown_row(row) for row in rows)]
    notes = [f"- {note}" for note in comparison.notes]
    return "\n".join([caption(comparison), "", *lines, *([""] if notes else []), *notes]) + "\n"


def _markdown_row(values: Sequence[str]) -> str:
    return "| " + " | ".join(v.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for v in values) + " |"


def latex(comparison: Comparison) -> str:
    """Return the table as LaTeX for booktabs."""
    header, rows = cells(comparison)
    columns = "".join("l" if column.number is None else "r" for column in columns_of(comparison))
    body = [" & ".join(map(_latex, row)) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_latex(caption(comparison))}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(_latex, header)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(c, c) for c in text)


def numbers(comparison: Comparison) -> str:
    """Return the table as CSV: one line a system and protocol, shares unrounded, each run in its own column."""
    columns = number_columns(comparison)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.title for column in columns])
    writer.writerows([column.value(row) for column in columns] for row in comparison.rows)
    return out.getvalue()


def write_tables(folder: Path, comparison: Comparison) -> list[Path]:
    """Write table.md, table.tex and table.csv; return their paths."""
    contents = {"table.md": markdown(comparison), "table.tex": latex(comparison), "table.csv": numbers(comparison)}
    for name, content in contents.items():
        write_atomic(folder / name, content.encode())
    return [folder / name for name in contents]
