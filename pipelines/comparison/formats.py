"""A comparison as a table to read (terminal, Markdown, LaTeX) and as numbers (CSV)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ifcar.cache.durable import write_atomic
from ifcar.pipelines.comparison.results import ResultRow
from ifcar.pipelines.comparison.store import Comparison
from ifcar.pipelines.labels.kinds import MEASURES

BOTH_MEASURES = "top-1 or mAP"
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


def mean_and_deviation(values: Sequence[float]) -> str:
    """Return "mean ± sample standard deviation" in percent; the mean alone for one value."""
    percent = 100 * np.asarray(values)
    deviation = f" ± {percent.std(ddof=1):.1f}" if len(percent) > 1 else ""
    return f"{percent.mean():.1f}{deviation}"


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


def metric_of(comparison: Comparison) -> str:
    """Return the key of the measure that decides in every row; "primary" where protocols of both label kinds meet."""
    metrics = {row.metric for row in comparison.rows}
    return metrics.pop() if len(metrics) == 1 else "primary"


def title_of(comparison: Comparison) -> str:
    """Return what the table calls the measure that decides."""
    return MEASURES.get(metric_of(comparison), BOTH_MEASURES)


def cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the table's header and rows as text."""
    rows = comparison.rows
    several = len({row.protocol for row in rows}) > 1
    published = any(row.published for row in rows)
    title, ranked = title_of(comparison), any(row.top5 for row in rows)
    header = ["system", *(["protocol"] if several else []), "n", "runs", title, "95 %"]
    header += [*(["top-5"] if ranked else []), f"train {title}"]
    if comparison.baseline:
        header += [f"Δ to {comparison.baseline}", "p (Holm)"]
    if published:
        header += [f"published {title}", *(["published top-5"] if ranked else [])]
    tested = bool(comparison.baseline)
    return header, [_cells(r, several=several, ranked=ranked, tested=tested, published=published) for r in rows]


def _cells(row: ResultRow, *, several: bool, ranked: bool, tested: bool, published: bool) -> list[str]:
    low, high = row.interval
    out = [row.system, *([row.protocol] if several else []), str(row.n), str(len(row.seeds))]
    out += [mean_and_deviation(row.primary), f"[{100 * low:.1f}, {100 * high:.1f}]"]
    if ranked:
        out.append(mean_and_deviation(row.top5) if row.top5 else "–")
    out.append(mean_and_deviation(row.train_primary))
    if tested:
        if row.against is None or row.p_corrected is None:
            out += ["–", "–"]
        else:
            t = row.against
            out.append(f"{_signed(t.difference)} [{_signed(t.low)}, {_signed(t.high)}]")
            out.append("< 0.001" if row.p_corrected < 0.001 else f"{row.p_corrected:.3f}")
    if published:
        out += [f"{row.published[k]:.1f}" if k in row.published else "–" for k in published_keys(row, ranked)]
    return out


def published_keys(row: ResultRow, ranked: bool) -> list[str]:
    """Return the keys of a row's published figures, in the order of the columns."""
    return [row.metric, *(["top5"] if ranked else [])]


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


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
    columns = "l" * (len(header) - len(_numbers(header))) + "r" * len(_numbers(header))
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


def _numbers(header: Sequence[str]) -> list[str]:
    return [name for name in header if name not in ("system", "protocol")]


def _latex(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(c, c) for c in text)


def numbers(comparison: Comparison) -> str:
    """Return the table as CSV: one line a system and protocol, shares unrounded, each run in its own column."""
    most = max((len(row.seeds) for row in comparison.rows), default=0)
    factors = sorted({name for row in comparison.rows for name in row.factors})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    name, ranked = metric_of(comparison), any(row.top5 for row in comparison.rows)
    fives = ["top5_mean", "top5_std"] if ranked else []
    writer.writerow(
        ["system", "protocol", "head", *factors, "n", "num_runs"]
        + [f"{name}_{what}" for what in ("mean", "std", "low", "high")]
        + [*fives, f"train_{name}_mean", "difference", "difference_low", "difference_high", "p", "p_holm"]
        + [f"published_{name}_percent", *(["published_top5_percent"] if ranked else [])]
        + [f"{name}_run{k}_seed" for k in range(most)]
        + [f"{name}_run{k}" for k in range(most)]
    )
    for row in comparison.rows:
        t, primary, top5 = row.against, np.asarray(row.primary), np.asarray(row.top5)
        writer.writerow(
            [
                row.system,
                row.protocol,
                row.head,
                *(row.factors.get(name, "") for name in factors),
                row.n,
                len(row.seeds),
            ]
            + [float(primary.mean()), _deviation(primary), *row.interval]
            + ([float(top5.mean()) if len(top5) else "", _deviation(top5)] if ranked else [])
            + [float(np.mean(row.train_primary))]
            + (["", "", "", ""] if t is None else [t.difference, t.low, t.high, t.p])
            + ["" if row.p_corrected is None else row.p_corrected]
            + [row.published.get(k, "") for k in published_keys(row, ranked)]
            + [*row.seeds, *[""] * (most - len(row.seeds)), *row.primary]
        )
    return out.getvalue()


def _deviation(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | str:
    return float(values.std(ddof=1)) if len(values) > 1 else ""


def write_tables(folder: Path, comparison: Comparison) -> list[Path]:
    """Write table.md, table.tex and table.csv; return their paths."""
    contents = {"table.md": markdown(comparison), "table.tex": latex(comparison), "table.csv": numbers(comparison)}
    for name, content in contents.items():
        write_atomic(folder / name, content.encode())
    return [folder / name for name in contents]
