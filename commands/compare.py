"""`ifcar compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ifcar.commands.options import Json, say
from ifcar.console import print_json, print_table

if TYPE_CHECKING:
    from ifcar.pipelines.compare import Compared


def compare(
    a: Annotated[str, typer.Argument(help="A finished run's folder, a cache, or TABLE:ROW of `ifcar list published`.")],
    b: Annotated[str, typer.Argument(help="The same; where both are runs, B's score is tested against A's.")],
    as_json: Json = False,
) -> None:
    """Say in what two runs or caches differ, or one and a paper's row, the likeliest to move the number first."""
    from ifcar.pipelines.compare import compare as compare_sides

    compared = compare_sides(a, b)
    if as_json:
        print_json(_plain(compared))
    else:
        _print(compared)


def _print(compared: Compared) -> None:
    from ifcar.pipelines.comparison.columns import interval, mean_and_deviation, of_many, p_text, points
    from ifcar.pipelines.labels.contract import MEASURES
    from ifcar.pipelines.runs.facts import MEANING

    rows = [[MEANING[d.fact.moves], d.fact.kind, d.fact.name, d.a, d.b] for d in compared.differences]
    if rows:
        print_table("differences", ["moves the number", "of", "what", "A", "B"], rows)
    else:
        say("nothing differs of what both record")
    for side, name in (("a", compared.a.name), ("b", compared.b.name)):
        kinds = compared.silent[side]
        if kinds:
            say(f"{name} says nothing of {', '.join(kinds)}: not compared")
    shown, certainty = [], of_many(compared.scores)
    for row in compared.scores:
        test = row.against
        difference = None if test is None else f"{points(test.difference)} {interval(test.low, test.high)}"
        measure = f"{MEASURES[row.metric]} {mean_and_deviation(row.primary)}"
        shown.append(
            [row.system, row.n, measure, certainty.text(row), difference, p_text(None if test is None else test.p)]
        )
    if shown:
        print_table("test scores", ["run", "n", "score", certainty.title, "B − A", "p"], shown)
    for key, value in compared.published.items():
        say(f"published: {MEASURES[key]} {value:.1f}")
    if compared.unprinted:
        say(f"the published figures are not printed: {compared.unprinted}")
    if compared.untested:
        say(f"the scores are not tested against each other: {compared.untested}")


def _plain(compared: Compared) -> dict[str, Any]:
    """Return what the command says as plain values; scores are shares, as in metrics.json."""
    from ifcar.pipelines.configs import to_plain

    return {
        "a": {"name": compared.a.name, "what": compared.a.what},
        "b": {"name": compared.b.name, "what": compared.b.what},
        "differences": [
            {"moves": d.fact.moves.name.lower(), "of": d.fact.kind, "what": d.fact.name, "a": d.a, "b": d.b}
            for d in compared.differences
        ],
        "not_stated": {side: list(kinds) for side, kinds in compared.silent.items()},
        "scores": [
            {
                "run": row.system,
                "n": row.n,
                "measure": row.metric,
                "value": row.primary[0],
                "population": row.population,
                "low": row.interval[0],
                "high": row.interval[1],
                "against": to_plain(row.against),
            }
            for row in compared.scores
        ],
        "untested": compared.untested,
        "published_percent": compared.published,
        "unprinted": compared.unprinted,
    }
