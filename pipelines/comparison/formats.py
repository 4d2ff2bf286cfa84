"""A comparison as a table to read (terminal, Markdown, LaTeX) and as numbers (CSV)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from ifcar.cache.durable import write_atomic
from ifcar.pipelines.comparison.columns import (
    best_rows,
    block_columns,
    blocks_of,
    columns_of,
    has_costs,
    has_map,
    metric_of,
    number_columns,
    second_measures,
    title_of,
)
from ifcar.pipelines.comparison.results import ResultRow
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
    "→": r"$\rightarrow$",
    "∞": r"$\infty$",
    "<": r"$<$",
    ">": r"$>$",
}


def caption(comparison: Comparison) -> str:
    """Return what the columns mean, in one paragraph."""
    measure = {"top1": "accuracy", "map": "mAP"}.get(metric_of(comparison), "accuracy or mAP")
    over = units(comparison)
    text = (
        f"{comparison.title or comparison.name}. Test {measure} in percent on {comparison.dataset}: "
        f"{_replicates(comparison)}; in brackets the 95 % interval of the mean over {over}."
    )
    if has_map(comparison.rows):
        text += (
            " The mAP of n clips lies above that of endlessly many such clips, the more so the fewer clips a class "
            "has: n → ∞ is an estimate of the latter for these trained models, and intervals, Δ and p are of it."
        )
    if "weighted_map" in second_measures(comparison):
        text += " Weighted mAP: each class counts by the number of its clips."
    if comparison.baseline:
        text += (
            f" Δ: difference in {title_of(comparison)} points to {comparison.baseline}, its 95 % interval over {over}, "
            f"and p of {_test(comparison)}, corrected by Holm's method over all comparisons of this table. Intervals "
            "and p speak of clips, with the trained models as they are; the deviation speaks of training again."
        )
    if has_costs(comparison):
        text += (
            " Minutes: of training one run, by the clock of the machine that trained it; of runs that trained together "
            "each has its share. GB: what the runs read of the cache."
        )
    if any(row.published for row in comparison.rows):
        text += " Published: figures of the paper on the same data and split."
    return text


def runs_text(rows: Sequence[ResultRow]) -> str:
    """Return how many runs each of these rows has, as "1 run" or "3 or 5 runs"."""
    counts = sorted({len(row.seeds) for row in rows}) or [0]
    return f"{' or '.join(map(str, counts))} {'run' if counts == [1] else 'runs'}"


def _replicates(comparison: Comparison) -> str:
    runs = runs_text(comparison.rows)
    if runs == "1 run":
        return runs
    return f"mean ± sample standard deviation over {runs} (seeds, and few-shot draws where there are several)"


def units(comparison: Comparison) -> str:
    """Return over what the intervals are, as "clips" or "75 scenes", the clips of each taken together."""
    found = dict.fromkeys((row.num_units, row.unit) for row in comparison.rows)
    plain = [unit for num, unit in found if num is None or unit == "clip"]
    whole = [f"{num:,} {unit}s, whose clips are taken together" for num, unit in found if num and unit != "clip"]
    return " or ".join([*(["clips"] if plain or not found else []), *whole])


def _test(comparison: Comparison) -> str:
    if comparison.paired_test == "mcnemar":
        return "an exact McNemar test"
    metrics = {row.metric for row in comparison.rows}
    tests = {"top1": "a paired bootstrap", "map": "a paired jackknife t test"}
    return " or ".join(text for key, text in tests.items() if key in metrics)


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
    """Return the table as LaTeX for booktabs: a short caption, a label, a block for each protocol, the best in bold."""
    columns, blocks = block_columns(comparison), blocks_of(comparison)
    body: list[str] = []
    for protocol, rows in blocks:
        best = best_rows(rows) if len(rows) > 1 else []
        body.append(r"\midrule")
        if len(blocks) > 1:
            body.append(rf"\multicolumn{{{len(columns)}}}{{l}}{{\emph{{{_latex(protocol)}}}}} \\")
        for row in rows:
            marked = [column.decides and any(row is own for own in best) for column in columns]
            texts = [_latex(column.text(row)) for column in columns]
            texts = [rf"\textbf{{{text}}}" if bold else text for text, bold in zip(texts, marked, strict=True)]
            body.append(" & ".join(texts) + r" \\")
    title = comparison.title or comparison.name
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption[{_latex(title)}]{{{_latex(f'{title}. {short_caption(comparison)}')}}}",
            rf"\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', comparison.name).strip('-')}}}",
            rf"\begin{{tabular}}{{{''.join('l' if column.number is None else 'r' for column in columns)}}}",
            r"\toprule",
            " & ".join(_latex(column.title) for column in columns) + r" \\",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def short_caption(comparison: Comparison) -> str:
    """Return what the columns mean, for a paper, whose text says the rest."""
    runs = runs_text(comparison.rows)
    mean = "" if runs == "1 run" else "mean ± deviation over "
    text = (
        f"Test {title_of(comparison)} (%) on {comparison.dataset}: {mean}{runs}, 95 % interval over {units(comparison)}"
    )
    if comparison.baseline:
        text += f"; Δ to {comparison.baseline}, p of {_test(comparison)} after Holm's correction"
    return f"{text}. Best in bold."


def _latex(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(c, c) for c in text)


def numbers(comparison: Comparison) -> str:
    """Return the table as CSV: one line a system and protocol, shares unrounded, each run in its own column."""
    columns = number_columns(comparison)
    rows = [[column.value(row) for column in columns] for row in comparison.rows]
    return csv_text([column.title for column in columns], rows)


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return numbers as CSV; None is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def write_tables(folder: Path, comparison: Comparison) -> list[Path]:
    """Write table.md, table.tex and table.csv; return their paths."""
    contents = {"table.md": markdown(comparison), "table.tex": latex(comparison), "table.csv": numbers(comparison)}
    for name, content in contents.items():
        write_atomic(folder / name, content.encode())
    return [folder / name for name in contents]
