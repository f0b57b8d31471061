"""``alscore evaluate``: metrics of a saved model on later plays."""

import argparse
import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

from alscore.cli import console, inputs

if TYPE_CHECKING:
    import pandas as pd
    from scipy import sparse

    from alscore.interactions import Interactions
    from alscore.metrics.evaluation import Evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``alscore evaluate``."""
    parser.add_argument("model", metavar="MODEL", help="file written by alscore train")
    parser.add_argument("--test", metavar="PATH", required=True, help="later plays, in a file as for alscore train")
    inputs.add_items_option(parser, ", the same as in alscore train")
    parser.add_argument(
        "-k", "--k", type=console.at_least_1, nargs="+", default=[10, 20, 50], help="cut-offs; default: 10 20 50"
    )
    parser.add_argument("--metrics", nargs="+", default=argparse.SUPPRESS, help="names, as for alscore.evaluate")
    parser.add_argument(
        "--drop-overlap", action="store_true", help="leave out plays of items that the user has in the model"
    )
    parser.add_argument("--threads", type=console.at_least_0, default=0, help="0: all CPUs that this process may use")
    parser.add_argument("--plot", metavar="FILE", help="draw the metrics over k, a PNG; needs matplotlib")
    console.add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate a saved model on a file of plays; print a table or a JSON document."""
    from alscore._support.files import atomic_writer
    from alscore.metrics import evaluation

    say, show_progress = console.messages(args), sys.stderr.isatty() and not args.quiet
    options = _checked_options(args)
    recommender, known = inputs.load_recommender(args.model)
    with atomic_writer(args.plot) if args.plot else contextlib.nullcontext() as plot:
        plays = inputs.read_and_report(args.test, say, items=args.items)
        test = _test_matrix(plays, known)
        n_unknown = plays.nnz - test.nnz
        result = evaluation.evaluate(
            recommender.model, known, test, args.k, **options, on_overlap="drop" if args.drop_overlap else "error",
            num_threads=args.threads, show_progress=show_progress,
        )  # fmt: skip
        table = result.table(show_progress=show_progress)
        if args.json:
            _print_document(args.model, result, n_unknown, table)
        else:
            _print_figures(result, table, say)
        if plot:
            result.plot(table).savefig(plot, format="png")


def _checked_options(args: argparse.Namespace) -> dict[str, Any]:
    """Check the arguments before any file is read. Return {"metrics": names}, or {} for the default."""
    from alscore.datasets.lastfm import plays_file
    from alscore.metrics import evaluation

    options: dict[str, Any] = {"metrics": evaluation.checked_metrics(args.metrics)} if "metrics" in args else {}
    if args.plot:
        for source in (args.model, plays_file(args.test)):
            console.check_output(args.plot, source, "plot")
        console.require_matplotlib()
        if options:
            evaluation.require_cutoff(options["metrics"])
    return options


def _test_matrix(plays: "Interactions", known: "Interactions") -> "sparse.csr_array":
    """Return `plays` as a matrix with the users and items of `known`, without users and items that it lacks."""
    from alscore._data.canonical import renumbered

    users, items = known.users.get_indexer(plays.users), known.items.get_indexer(plays.items)
    test = renumbered(plays[users >= 0].matrix, users[users >= 0], items, known.shape)
    if not test.nnz:
        raise ValueError(
            f"none of the {plays.nnz:,} plays has a user and an item that the model knows; use the same --items as "
            "for alscore train, or other plays"
        )
    if n_unknown := plays.nnz - test.nnz:
        print(f"alscore: left out {n_unknown:,} plays of users or items unknown to the model", file=sys.stderr)
    return test


def _print_document(model: str, result: "Evaluation", n_unknown: int, table: "pd.DataFrame") -> None:
    console.print_json(
        {
            "model": model,
            "users": len(result.users),
            "users_without_test": result.n_users_without_test,
            "left_out": {"unknown": n_unknown, "overlapping": result.n_overlapping},
            "metrics": json.loads(table.to_json(orient="records", double_precision=15)),  # null for missing figures
        }
    )


def _print_figures(result: "Evaluation", table: "pd.DataFrame", say: console.Print) -> None:
    say(
        f"{len(result.users):,} users evaluated; {result.n_users_without_test:,} others have no test plays; "
        f"left out {result.n_overlapping:,} plays of items that the user has in the model\n"
    )
    figures = table[["mean", "lower", "upper"]].map(lambda figure: f"{figure:.4f}").replace("nan", "-")
    cutoffs = table["k"].astype(object).where(table["k"].notna(), "-")
    console.print_table(("metric", "k", *figures), zip(table["metric"], cutoffs, *figures.to_numpy().T, strict=True))
