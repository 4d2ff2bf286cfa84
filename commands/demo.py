"""`ifcar demo`."""

from __future__ import annotations

from dataclasses import asdict

from ifcar.commands.options import Json, Processes, say
from ifcar.console import Screen, print_json, print_table


def demo(
    processes: Processes = None,
    as_json: Json = False,
) -> None:
    """Go the whole way on generated videos: render, extract, train six heads over three seeds, fuse, tabulate."""
    from ifcar.pipelines.demo import demo as run_demo
    from ifcar.pipelines.demo import mean_and_deviation

    result = run_demo(Screen(quiet=as_json), processes=processes)
    if as_json:
        print_json({"rows": [asdict(r) for r in result.rows], "table": result.table})
        return
    for protocol in dict.fromkeys(r.protocol for r in result.rows):
        rows = [r for r in result.rows if r.protocol == protocol]
        print_table(
            f"toybox, {protocol}, {rows[0].n} test clips: percent, mean ± deviation over {len(rows[0].top1)} seeds",
            ["system", "top-1", "each seed", "top-5", "train top-1"],
            [
                [
                    r.system,
                    mean_and_deviation(r.top1),
                    " ".join(f"{100 * v:.1f}" for v in r.top1),
                    mean_and_deviation(r.top5),
                    mean_and_deviation(r.train_top1),
                ]
                for r in rows
            ],
        )
    say(f"Table: {result.table}; pictures: {result.pictures[0].parent}/")
    say("Next: `ifcar extract --dataset something-else --data-root FOLDER` for real videos, or `ifcar list runs`.")
