"""``alscore recommend`` and ``alscore similar``: top-N search in a saved model."""

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from alscore.cli import console, inputs

if TYPE_CHECKING:
    import pandas as pd


def recommend_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``alscore recommend``."""
    users = _add_common_arguments(parser, "user")
    users.add_argument("--all", metavar="FILE", help="recommend to all users, into a Parquet file")
    parser.add_argument(
        "--filter", metavar="LABEL", action="append", default=[], help="item never to recommend; may be repeated"
    )


def run_recommend(args: argparse.Namespace) -> None:
    """Recommend items to users, or to all users into a file."""
    if args.all is not None:
        console.check_output(args.all, args.model, "table")
    recommender, interactions = inputs.load_recommender(args.model)
    deny = _labels(args.filter, interactions.items, args.skip_unknown)
    if args.all is None:
        users = _labels(args.user, interactions.users, args.skip_unknown)
        search = functools.partial(recommender.recommend, deny=deny.known)
        _print_results(args, search, users.known, "recommendations", users.unknown + deny.unknown)
        return
    n_rows = recommender.recommend_all(args.all, n=args.n, deny=deny.known, show_progress=sys.stderr.isatty())
    if args.json:
        console.print_json({"file": args.all, "recommendations": n_rows, "unknown": deny.unknown})
        return
    _print_unknown(deny.unknown)
    print(f"{args.all}: {n_rows:,} recommendations")


def similar_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``alscore similar``."""
    _add_common_arguments(parser, "item")


def run_similar(args: argparse.Namespace) -> None:
    """Print the items that are most similar to each given one."""
    recommender, interactions = inputs.load_recommender(args.model)
    items = _labels(args.item, interactions.items, args.skip_unknown)
    _print_results(args, recommender.similar_items, items.known, "similar_items", items.unknown)


def _add_common_arguments(parser: argparse.ArgumentParser, side: str) -> argparse._MutuallyExclusiveGroup:
    """Add the arguments of both commands; return the group of those that give the queries."""
    parser.add_argument("model", metavar="MODEL", help="file written by alscore train")
    queries = parser.add_mutually_exclusive_group(required=True)
    queries.add_argument(f"--{side}", metavar="LABEL", action="append", help="may be repeated")
    parser.add_argument(
        "-n", type=console.at_least_1, default=10, help=f"number of results for each {side}; default: %(default)s"
    )
    parser.add_argument("--skip-unknown", action="store_true", help="leave out labels that the model does not know")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return queries


class _Labels(NamedTuple):
    known: "pd.Index"
    unknown: list[Any]


def _labels(texts: list[str], index: "pd.Index", skip_unknown: bool) -> _Labels:
    """Return the distinct labels of `texts`, in the type of the labels in `index`.

    Labels that are not in `index` are `unknown` if they are to be skipped. Otherwise all labels count as known, and the
    search raises the error.
    """
    import pandas as pd

    labels = pd.Index(texts).unique()
    if pd.api.types.is_integer_dtype(index):
        with contextlib.suppress(ValueError, OverflowError):
            labels = labels.astype(index.dtype)
    known = labels.isin(index) | (not skip_unknown)
    return _Labels(labels[known], labels[~known].tolist())


def _print_results(
    args: argparse.Namespace,
    search: Callable[..., "pd.DataFrame"],
    queries: "pd.Index",
    name: str,
    unknown: list[Any],
) -> None:
    """Search for `queries`, and print the results and the labels that were left out as unknown."""
    ranking = search(queries, args.n)
    if args.json:
        console.print_json({name: ranking.to_dict("records"), "unknown": unknown})
        return
    _print_unknown(unknown)
    query_column, result_column = ranking.columns[:2]
    for query in queries:
        print(f"{query_column} {query}")
        rows = ranking[ranking[query_column] == query].itertuples()
        console.print_table(("rank", result_column, "score"), ((row.rank, row[2], f"{row.score:.4f}") for row in rows))
        print()


def _print_unknown(labels: list[Any]) -> None:
    for label in labels:
        print(f"alscore: unknown, left out: {label!r}", file=sys.stderr)
