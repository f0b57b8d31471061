"""The command line: ``alscore COMMAND …`` or ``python -m alscore COMMAND …``."""

import argparse
import contextlib
import functools
import importlib.util
import inspect
import io
import json
import math
import os
import signal
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alscore._support.train_options import MODEL_OPTIONS
from alscore._support.version import __version__

if TYPE_CHECKING:
    import pandas as pd

    from alscore.interactions import Interactions
    from alscore.metrics.evaluation import Evaluation
    from alscore.recommender import Recommender


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : list of str, optional
        Default: the process's own arguments.

    Returns
    -------
    int
        The exit code: 0 done, 1 an error in the data or the model, 130 interrupted, 141 stdout closed by its
        reader. Wrong usage exits with 2 from within.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # show any label, even on a terminal without UTF-8
    args = _parser().parse_args(argv, argparse.Namespace(debug=False))
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as interrupt:
        print("alscore: interrupted", *interrupt.args, file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            raise
        print(f"alscore: error: {_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    message = str(error).replace("on_unknown='skip'", "--skip-unknown").replace("on_overlap='drop'", "--drop-overlap")
    return " ".join(message.split()) or type(error).__name__


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    parser = argparse.ArgumentParser(
        "alscore", parents=[common], description="Factorise implicit feedback by alternating least squares."
    )
    parser.add_argument("--version", action="version", version=f"alscore {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (run, add_arguments) in COMMANDS.items():
        command = commands.add_parser(name, parents=[common], help=run.__doc__, description=run.__doc__)
        add_arguments(command)
        command.set_defaults(run=run)
    return parser


def _whole(least: int, text: str) -> int:
    if not text.strip().isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
    return int(text)


def _real(above: bool, text: str) -> float:
    with contextlib.suppress(ValueError):
        value = float(text)
        if math.isfinite(value) and (value > 0 or (value == 0 and not above)):
            return value
    raise argparse.ArgumentTypeError(f"must be a finite number {'above' if above else 'of at least'} 0, not {text!r}")


_positive, _natural = functools.partial(_whole, 1), functools.partial(_whole, 0)
_above_0, _at_least_0 = functools.partial(_real, True), functools.partial(_real, False)


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--users", type=_positive, default=20_000, help="default: %(default)s")
    parser.add_argument("--items", type=_positive, default=15_000, help="default: %(default)s")
    parser.add_argument("--factors", type=_positive, default=64, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")


def _demo(args: argparse.Namespace) -> None:
    """make a file of plays, read it, train and recommend; needs no data"""
    import numpy as np

    from alscore import datasets
    from alscore.als import AlternatingLeastSquares
    from alscore.recommender import Recommender

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plays.tsv")
        datasets.write_lastfm_360k(datasets.synthetic(args.users, args.items, seed=args.seed), path)
        interactions = _read(path, print)

    # Few but very large counts would drown the rest in a linear confidence.
    recommender = Recommender(
        AlternatingLeastSquares(args.factors, regularization=30, confidence="log", random_state=args.seed)
    )
    sweeps = _fit(recommender, interactions, print)
    median = np.median([sweep["seconds"] for sweep in sweeps])
    print(f"\na sweep takes {median:.3f} s (median of {len(sweeps)})")

    favourites = []
    for code in np.linspace(0, interactions.n_users - 1, 3, dtype=int):
        plays = interactions.rows([code])
        played = interactions.items[plays.indices[np.argsort(-plays.data, kind="stable")[:5]]]
        wanted = recommender.recommend([interactions.users[code]], n=5)["item"]
        print(f"\nuser {interactions.users[code]}")
        _print_table(("plays most", "should try"), zip_longest(played, wanted, fillvalue=""))
        favourites.append(played[0])
    similar = recommender.similar_items(favourites, n=3)
    print()
    _print_table(
        ("artist", "similar artist", "cosine"),
        ((row.item, row.similar_item, f"{row.score:.3f}") for row in similar.itertuples()),
    )


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=("lastfm-360k", "lastfm-1k", "hetrec-lastfm-2k"), help="of the data set")
    parser.add_argument("--folder", help="where the archive is kept; default: $ALSCORE_DATA, or else a cache folder")


def _fetch(args: argparse.Namespace) -> None:
    """download a published data set, unless it is there, and print the path of its archive"""
    from alscore import datasets

    print(datasets.fetch(args.name, args.folder, show_progress=sys.stderr.isatty()))


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="Last.fm 360K: .tar.gz, .tsv, .tsv.gz or folder")
    parser.add_argument("-o", "--output", metavar="MODEL", required=True, help="file for the trained model")
    parser.add_argument("--items", choices=("name", "mbid"), default="name", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON document; messages go to stderr")
    parser.add_argument("--quiet", action="store_true", help="no progress, no messages")
    model = parser.add_argument_group("model", "as for alscore.AlternatingLeastSquares, whose defaults hold")
    for option, parameter, kind, meaning in MODEL_OPTIONS:
        _add_model_option(model, option, parameter, kind, meaning)


def _add_model_option(group: Any, option: str, parameter: str, kind: Callable[[str], Any], meaning: str) -> None:
    metavar = option[2:].split("-")[-1].upper()
    group.add_argument(option, dest=parameter, metavar=metavar, type=kind, default=argparse.SUPPRESS, help=meaning)


def _train(args: argparse.Namespace) -> None:
    """train a model on a file of plays and save it"""
    from alscore._support.files import atomic_writer
    from alscore.als import AlternatingLeastSquares
    from alscore.datasets.lastfm import plays_file
    from alscore.recommender import Recommender

    started = time.perf_counter()
    say = _messages(args)
    names = AlternatingLeastSquares().get_params()
    params = {name: value for name, value in vars(args).items() if name in names}
    recommender = Recommender(AlternatingLeastSquares(**params))
    _check_output(args.output, plays_file(args.path), "model")
    # Opened first, so that a path that cannot be written to fails now and not after the training.
    with atomic_writer(args.output) as file:
        interactions = _read(args.path, say, items=args.items)
        sweeps = _fit(recommender, interactions, say)
        recommender.save(file)
    seconds = time.perf_counter() - started
    say(f"\n{args.output}: {os.path.getsize(args.output) / 1e6:.1f} MB, {seconds:.1f} s in all")
    if args.json:
        report = interactions.report
        assert report is not None  # as from any reader
        _print_json(
            {
                "model": args.output,
                "users": interactions.n_users,
                "items": interactions.n_items,
                "read": report.read,
                "kept": report.kept,
                "merged": report.merged,
                "rejected": report.rejected.to_dict("records"),
                "sweeps": sweeps,
                "seconds": seconds,
            }
        )


def _tune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="as for alscore train")
    parser.add_argument("--items", choices=("name", "mbid"), default="name", help="default: %(default)s")
    parser.add_argument("--trials", type=_positive, default=30, help="in the study; default: %(default)s")
    parser.add_argument("--metric", default="ndcg@10", help="and its cut-off, to be high; default: %(default)s")
    parser.add_argument("--study", metavar="FILE", help="SQLite file, in which the search goes on where it ended")
    parser.add_argument("--plot", metavar="FILE", help="draw the metric over each parameter, a PNG; needs matplotlib")
    parser.add_argument("--iterations", type=_positive, default=15, help="sweeps at most; default: %(default)s")
    parser.add_argument("--threads", type=_natural, default=0, help="0: all that this process may use")
    parser.add_argument("--seed", type=_natural, default=0, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON document; messages go to stderr")
    parser.add_argument("--quiet", action="store_true", help="no progress, no messages")
    model = parser.add_argument_group(
        "model", "a value to keep, a range of numbers LOW,HIGH or names NAME,NAME,... to search; instead of the default"
    )
    for option, parameter, kind, meaning in MODEL_OPTIONS:
        if parameter not in ("iterations", "num_threads", "random_state"):
            _add_model_option(model, option, parameter, functools.partial(_searched, kind), meaning)


def _searched(kind: type, text: str) -> Any:
    """One value as it is, names as a list and numbers as a tuple: see `alscore.tuning.tune`."""
    try:
        values = [kind(value) for value in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be {kind.__name__} or a range LOW,HIGH, not {text!r}") from error
    return values[0] if len(values) == 1 else values if kind is str else tuple(values)


def _tune(args: argparse.Namespace) -> None:
    """search the parameters that rank best a fifth of each user's plays from the others"""
    from alscore import splits, tuning
    from alscore._support.files import atomic_writer
    from alscore.als import AlternatingLeastSquares
    from alscore.datasets.lastfm import plays_file

    # Whatever would fail in the end has to fail before the file is read.
    tuning.require_optuna()
    tuning.parsed(args.metric)
    if args.plot:
        _require_matplotlib()
    for path, kind in ((args.study, "study"), (args.plot, "plot")):
        if path:
            _check_output(path, plays_file(args.path), kind)
    if args.study and args.plot and os.path.realpath(args.study) == os.path.realpath(args.plot):
        raise ValueError(f"{args.plot} is the study: give the plot another name")
    say = _messages(args)
    model = AlternatingLeastSquares(num_threads=args.threads)
    given = {name: value for name, value in vars(args).items() if name in model.get_params()}
    model.set_params(**{name: value for name, value in given.items() if not isinstance(value, list | tuple)})
    space = {name: value for name, value in {**tuning.SPACE, **given}.items() if isinstance(value, list | tuple)}
    with atomic_writer(args.plot) if args.plot else contextlib.nullcontext() as plot:
        found = tuning.tune(
            splits.leave_k_out(_read(args.path, say, items=args.items), 0.2),
            args.metric,
            args.trials,
            space=space,
            model=model,
            storage=args.study,
            random_state=args.seed,
            show_progress=sys.stderr.isatty() and not args.quiet,
        )
        table = found.table()
        if plot:
            found.plot().savefig(plot, format="png")
    command = f"{found.command(args.path)} --items {args.items}"
    if args.json:
        records = json.loads(table.to_json(orient="records", double_precision=15))  # null for what is missing
        _print_json({"trials": records, "command": command})
    else:
        _print_table(
            tuple(map(str, table)),
            (
                tuple(f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row)
                for row in table.head(10).itertuples(index=False)
            ),
        )
        print(f"\nto train the best of {len(table)} trials:\n\n{command}")
    if len(table) < args.trials:
        raise KeyboardInterrupt(f"after {len(table)} of {args.trials} trials")


def _check_output(path: str, source: str | os.PathLike[str], kind: str) -> None:
    """Refuse to replace the file that a command reads by the one that it writes."""
    if os.path.exists(path) and os.path.samefile(source, path):
        raise ValueError(f"{path} is the file to read: give the {kind} another name")


def _read(path: str | os.PathLike[str], say: Callable[..., None], **options: str) -> "Interactions":
    """Read a file of plays; say what became of its lines."""
    from alscore import datasets

    say(f"reading {path}", flush=True)
    interactions = datasets.lastfm_360k(path, **options)
    say(interactions.report)
    say(f"{interactions.n_users:,} users × {interactions.n_items:,} items, {interactions.nnz:,} entries\n")
    return interactions


def _fit(recommender: "Recommender", interactions: "Interactions", say: Callable[..., None]) -> list[dict[str, float]]:
    """Fit; say what each sweep came to, and return the same as a list of dicts."""
    sweeps: list[dict[str, float]] = []
    n_sweeps = recommender.model.iterations

    def after_sweep(iteration: int, seconds: float, loss: float) -> None:
        sweeps.append({"seconds": seconds, "loss": loss})
        say(f"sweep {iteration + 1:2}/{n_sweeps}: {seconds:8.3f} s, loss {loss:,.2f}", flush=True)

    try:
        recommender.fit(interactions, show_progress=False, callback=after_sweep)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"after {len(sweeps)} of {n_sweeps} sweeps; nothing is saved") from interrupt
    return sweeps


def _recommend_arguments(parser: argparse.ArgumentParser) -> None:
    users = _ranking_arguments(parser, "user")
    users.add_argument("--all", metavar="FILE", help="for all users, to a Parquet file")
    parser.add_argument(
        "--filter", metavar="LABEL", action="append", default=[], help="item never to recommend; may be repeated"
    )


def _recommend(args: argparse.Namespace) -> None:
    """recommend items to users of a trained model"""
    if args.all is not None:
        _check_output(args.all, args.model, "table")
    recommender, interactions = _load(args.model)
    deny, unknown = _labels(args.filter, interactions.items, args.skip_unknown)
    if args.all is None:
        ask = functools.partial(recommender.recommend, deny=deny)
        _answer(args, ask, args.user, interactions.users, "recommendations", unknown)
        return
    n_rows = recommender.recommend_all(args.all, n=args.n, deny=deny, show_progress=sys.stderr.isatty())
    if args.json:
        _print_json({"file": args.all, "recommendations": n_rows, "unknown": unknown})
        return
    _print_unknown(unknown)
    print(f"{args.all}: {n_rows:,} recommendations")


def _similar_arguments(parser: argparse.ArgumentParser) -> None:
    _ranking_arguments(parser, "item")


def _similar(args: argparse.Namespace) -> None:
    """find the items that are most like others in a trained model"""
    recommender, interactions = _load(args.model)
    _answer(args, recommender.similar_items, args.item, interactions.items, "similar_items", [])


def _ranking_arguments(parser: argparse.ArgumentParser, kind: str) -> argparse._MutuallyExclusiveGroup:
    """Add what ranking commands have in common; return the group that says for whom."""
    parser.add_argument("model", metavar="MODEL", help="file written by alscore train")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(f"--{kind}", metavar="LABEL", action="append", help="may be repeated")
    parser.add_argument("-n", type=_positive, default=10, help="answers for each; default: %(default)s")
    parser.add_argument("--skip-unknown", action="store_true", help="leave out labels that are new")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return asked


def _load(path: str) -> tuple["Recommender", "Interactions"]:
    """Read a fitted Recommender; return its interactions too."""
    from alscore.persistence import load
    from alscore.recommender import Recommender

    recommender = load(path)
    if not isinstance(recommender, Recommender) or recommender.interactions is None:
        raise ValueError(f"{path} holds a model without labels; save a fitted alscore.Recommender")
    return recommender, recommender.interactions


def _answer(
    args: argparse.Namespace,
    ask: Callable[..., "pd.DataFrame"],
    texts: list[str],
    index: "pd.Index",
    name: str,
    unknown: list[Any],
) -> None:
    """Print what `ask` answers for the labels given as `texts`, and which are unknown, besides those that are so."""
    labels, left_out = _labels(texts, index, args.skip_unknown)
    unknown = left_out + unknown
    ranking = ask(labels, args.n)
    if args.json:
        _print_json({name: ranking.to_dict("records"), "unknown": unknown})
        return
    _print_unknown(unknown)
    asked, answer = ranking.columns[:2]
    for label in labels:
        print(f"{asked} {label}")
        rows = ranking[ranking[asked] == label].itertuples()
        _print_table(("rank", answer, "score"), ((row.rank, row[2], f"{row.score:.4f}") for row in rows))
        print()


def _print_unknown(labels: list[Any]) -> None:
    for label in labels:
        print(f"alscore: unknown, left out: {label!r}", file=sys.stderr)


def _labels(texts: list[str], index: "pd.Index", skip_unknown: bool) -> tuple["pd.Index", list[Any]]:
    """Return distinct labels, of the type of those in `index`; and apart from them the unknown ones to skip."""
    import pandas as pd

    labels = pd.Index(texts).unique()
    if pd.api.types.is_integer_dtype(index):
        with contextlib.suppress(ValueError, OverflowError):
            labels = labels.astype(index.dtype)
    known = labels.isin(index) | (not skip_unknown)
    return labels[known], labels[~known].tolist()


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="file written by alscore train")
    parser.add_argument("--test", metavar="PATH", required=True, help="later plays, in a file as for alscore train")
    parser.add_argument("--items", choices=("name", "mbid"), default="name", help="as trained; default: %(default)s")
    parser.add_argument("-k", "--k", type=_positive, nargs="+", default=[10, 20, 50], help="default: 10 20 50")
    parser.add_argument("--metrics", nargs="+", default=argparse.SUPPRESS, help="names, as for alscore.evaluate")
    parser.add_argument("--drop-overlap", action="store_true", help="leave out plays of what the user has in the model")
    parser.add_argument("--threads", type=_natural, default=0, help="0: all that this process may use")
    parser.add_argument("--plot", metavar="FILE", help="draw the metrics over k, a PNG; needs matplotlib")
    parser.add_argument("--json", action="store_true", help="print one JSON document; messages go to stderr")
    parser.add_argument("--quiet", action="store_true", help="no progress, no messages")


def _evaluate(args: argparse.Namespace) -> None:
    """judge a trained model by plays that it has not seen"""
    from alscore._data.canonical import recoded
    from alscore._support.files import atomic_writer
    from alscore.datasets.lastfm import plays_file
    from alscore.metrics import evaluation
    from alscore.metrics.evaluation import evaluate

    say, interactive = _messages(args), sys.stderr.isatty() and not args.quiet
    options: dict[str, Any] = {"metrics": evaluation.checked_metrics(args.metrics)} if "metrics" in args else {}
    if args.plot:
        for source in (args.model, plays_file(args.test)):
            _check_output(args.plot, source, "plot")
        _require_matplotlib()
        if options:
            evaluation.require_cutoff(options["metrics"])
    recommender, known = _load(args.model)
    with atomic_writer(args.plot) if args.plot else contextlib.nullcontext() as plot:
        plays = _read(args.test, say, items=args.items)
        users, items = known.users.get_indexer(plays.users), known.items.get_indexer(plays.items)
        test = recoded(plays[users >= 0].matrix, users[users >= 0], items, known.shape)
        n_unknown = plays.nnz - test.nnz
        if not test.nnz:
            raise ValueError(
                f"none of the {plays.nnz:,} plays has a user and an item that the model knows: is --items as trained?"
            )
        if n_unknown:
            print(f"alscore: left out {n_unknown:,} plays of users or items unknown to the model", file=sys.stderr)
        found = evaluate(
            recommender.model, known, test, args.k, **options, on_overlap="drop" if args.drop_overlap else "error",
            num_threads=args.threads, show_progress=interactive,
        )  # fmt: skip
        table = found.table(show_progress=interactive)
        _print_evaluation(args, found, n_unknown, table, say)
        if plot:
            found.plot(table).savefig(plot, format="png")


def _print_evaluation(
    args: argparse.Namespace, found: "Evaluation", n_unknown: int, table: "pd.DataFrame", say: Callable[..., None]
) -> None:
    if args.json:
        document = {
            "model": args.model,
            "users": len(found.users),
            "users_without_test": found.n_users_without_test,
            "left_out": {"unknown": n_unknown, "overlapping": found.n_overlapping},
            "metrics": json.loads(table.to_json(orient="records", double_precision=15)),  # null for what is missing
        }
        _print_json(document)
        return
    say(
        f"{len(found.users):,} users judged; {found.n_users_without_test:,} others have no plays to judge by; left out "
        f"{found.n_overlapping:,} plays of items that the user has in the model\n"
    )
    figures = table[["mean", "lower", "upper"]].map(lambda figure: f"{figure:.4f}").replace("nan", "-")
    cutoffs = table["k"].astype(object).where(table["k"].notna(), "-")
    _print_table(("metric", "k", *figures), zip(table["metric"], cutoffs, *figures.to_numpy().T, strict=True))


def _require_matplotlib() -> None:
    if not importlib.util.find_spec("matplotlib"):
        raise ImportError("--plot needs matplotlib: pip install 'alscore[bench]'")


def _bench_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(metavar="KIND", required=True, dest="kind")
    data, peers, sparking = (argparse.ArgumentParser(add_help=False) for _ in range(3))
    peers.add_argument(
        "--python",
        metavar="NAME=PATH",
        type=_interpreter,
        action="append",
        default=[],
        help="interpreter of the contenders whose names start so; may be repeated",
    )
    training, ranking, updating = (argparse.ArgumentParser(add_help=False, parents=[peers]) for _ in range(3))
    source = data.add_mutually_exclusive_group()
    source.add_argument("--data", metavar="PATH", help="Last.fm 360K file; default: synthetic plays of its shape")
    source.add_argument(
        "--scale",
        type=_above_0,
        help="of the synthetic users and items, 1: 358,868 x 292,385; default: 0.1",
    )
    data.add_argument("--repeats", type=_positive, default=3, help="processes of each; default: %(default)s")
    data.add_argument("--baseline", metavar="NAME", help="what ratios are to; default: the first of ours")
    data.add_argument(
        "--json", metavar="FILE", nargs="?", const="-", help="write one JSON document there, or print it, not the table"
    )
    data.add_argument("--plot", metavar="FILE", help="draw a PNG; needs matplotlib")
    for common in (training, ranking, updating, sparking):
        common.add_argument("--factors", type=_positive, default=128, help="default: %(default)s")
        common.add_argument("--threads", type=_natural, default=0, help="0: all that this process may use")
        common.add_argument("--seed", type=_natural, default=0, help="default: %(default)s")
    training.add_argument(
        "--solver", metavar="NAMES", type=_names, default="cholesky,cg,auto", help="ours; default: %(default)s"
    )
    sparking.add_argument(
        "--solver", metavar="NAMES", type=_names, default="cholesky", help="ours; default: %(default)s"
    )
    training.add_argument(
        "--isa", metavar="SETS", type=_isas, default="", help=f"kernel sets, ours runs with each: {','.join(_ISAS)}"
    )
    for fitting, regularization in ((training, 0.01), (sparking, 0.1)):
        fitting.add_argument("--alpha", type=_above_0, default=1.0, help="weight of the plays; default: %(default)s")
        fitting.add_argument(
            "--regularization", type=_at_least_0, default=regularization, help="λ; default: %(default)s"
        )
    ranking.add_argument("--top", type=_positive, default=10, help="items for each user; default: %(default)s")

    def add(
        kind: str, parents: list[argparse.ArgumentParser], others: str, against: str, help: str
    ) -> argparse.ArgumentParser:
        added = kinds.add_parser(kind, parents=[data, *parents], help=help, description=help)
        added.add_argument(
            "--against", metavar="NAMES", type=_names, default=against,
            help=f"of {others}; default: {against or 'none'}",
        )  # fmt: skip
        return added

    sweep = add("sweep", [training], _TRAINERS, "", "seconds of a full sweep, users and items")
    sweep.add_argument("--sweeps", type=_positive, default=2, help="that count, in each process; default: %(default)s")
    converge = add("converge", [training], _TRAINERS, "", "seconds until the objective is near to the best")
    converge.add_argument("--sweeps", type=_positive, default=15, help="in each process; default: %(default)s")
    converge.add_argument(
        "--reference-sweeps", type=_positive, default=30, help="exact ones, for the best; default: %(default)s"
    )
    topn = add("topn", [ranking], "implicit,numpy", "implicit,numpy", "seconds to recommend to all users")
    foldin = add("foldin", [updating], _FOLDERS, "implicit", "seconds to solve users from their rows")
    for asking in (topn, foldin):
        asking.add_argument("--one-by-one", action="store_true", help="each user in a call of its own")
    topn.add_argument("--random-factors", action="store_true", help="normal instead of trained: nothing to be pruned")
    update = add("update", [updating], _UPDATERS, _UPDATERS, "seconds of partial_fit, and of a fit from nothing")
    update.add_argument("--sweeps", type=_positive, default=15, help="of the fit; default: %(default)s")
    add("load", [peers], "pandas,bytes,saved", "pandas,bytes,saved", "seconds to read a file")
    judging = add("evaluate", [ranking], "implicit", "implicit", "seconds to rank and judge by held-out plays")
    on_spark = add("spark", [sparking], "mllib", "mllib", "seconds of an iteration on Apache Spark, and to recommend")
    on_spark.add_argument(
        "--interactions", type=_positive, help="so many, made by Spark itself, instead of --scale; without MLlib"
    )
    on_spark.add_argument("--iterations", type=_positive, default=2, help="that count; default: %(default)s")
    on_spark.add_argument("--blocks", type=_natural, default=0, help="of users, and of items; 0: one a thread")
    on_spark.add_argument("--memory", default="8g", help="of Java, such as 12g; default: %(default)s")
    on_spark.add_argument("--top", type=_natural, default=10, help="items for each user; default: %(default)s")
    for sampling in (topn, foldin, judging, on_spark):
        sampling.add_argument("--users", type=_positive, help="size of a random sample of them")


_FOLDERS = "alscore-half-sweep,implicit"
_UPDATERS = "alscore-2-sweeps,alscore-fit"
_ISAS = "avx512", "avx2", "neon", "generic"
# Named here, since their modules take longer to import than most commands to run.
_TRAINERS = (
    "implicit-cholesky,implicit-cg,irspack-cholesky,irspack-cg,irspack-ialspp,cmfrec-cholesky,cmfrec-cg,lenskit,"
    "buffalo-cholesky,buffalo-cg,buffalo-ialspp"
)


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _isas(text: str) -> list[str]:
    if unknown := set(_names(text)) - set(_ISAS):
        raise argparse.ArgumentTypeError(f"must be some of {','.join(_ISAS)}, not {','.join(sorted(unknown))!r}")
    return _names(text)


def _interpreter(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise argparse.ArgumentTypeError(f"must be NAME=PATH, such as buffalo=/path/to/python, not {text!r}")
    return name, path


def _bench(args: argparse.Namespace) -> None:
    """compare the speed of solvers, ours and others', on this machine"""
    from alscore import bench
    from alscore._support.files import atomic_writer
    from alscore.bench import presentation

    if args.plot:
        _require_matplotlib()
    say = functools.partial(print, file=sys.stderr, flush=True)
    measure = getattr(bench, args.kind)
    ours = [f"alscore-{name}" for name in args.solver] if "solver" in args else ["alscore"]
    options = vars(args) | {"contenders": [*ours, *args.against], "say": say}
    if "python" in options:
        options["python"] = dict(args.python)
    options = {name: value for name, value in options.items() if name in inspect.signature(measure).parameters}
    # Files are opened first, so that a path that cannot be written to fails now and not after the measurement.
    with (
        atomic_writer(args.plot) if args.plot else contextlib.nullcontext() as plot,
        atomic_writer(args.json) if args.json and args.json != "-" else contextlib.nullcontext() as document,
        tempfile.TemporaryDirectory() as folder,
    ):
        data, described = _bench_data(args, folder)
        answer = measure(data, **options)
        answer["settings"]["data"] = described
        if plot:
            presentation.plot(answer, plot)
        if document:
            document.write((_json(answer) + "\n").encode())
    if args.json == "-":
        _print_json(answer)
    else:
        print(*presentation.above(answer), sep="\n")
        _print_table(*presentation.table(answer))
        for line in presentation.below(answer):
            print(line)
    if failed := [name for name in answer["failed"] if name.partition("@")[0] in ours]:
        raise RuntimeError(f"{', '.join(failed)} failed")


def _bench_data(args: argparse.Namespace, folder: str) -> tuple[Any, str]:
    """What a benchmark measures on, a file for `load` and a matrix for the others; and what that is, in words."""
    from alscore import datasets

    if getattr(args, "interactions", None):
        for name in ("data", "scale"):
            if getattr(args, name) is not None:
                raise ValueError(f"--interactions lets Spark make the plays: leave out --{name}, or --interactions")
        return args.interactions, f"made by Spark ({args.interactions:,} interactions, seed 0)"
    if args.data:
        return args.data if args.kind == "load" else datasets.lastfm_360k(args.data).matrix, args.data
    scale = 0.1 if args.scale is None else args.scale
    described = f"synthetic (scale {scale:g}, seed 0)"
    n_users, n_items = (max(1, round(size * scale)) for size in (358_868, 292_385))
    interactions = datasets.synthetic(n_users, n_items, seed=0)
    if args.kind != "load":
        return interactions.matrix, described
    path = Path(folder, "plays.tsv")
    datasets.write_lastfm_360k(interactions, path)
    return path, described


def _info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _info(args: argparse.Namespace) -> None:
    """show versions, kernels, BLAS and threads: for a bug report"""
    from alscore.cli import info

    collected = info.collect()
    if args.json:
        _print_json(collected)
    else:
        print(*info.lines(collected), sep="\n")


def _messages(args: argparse.Namespace) -> Callable[..., None]:
    """Return a `print` for people: silent if --quiet, to stderr if stdout is for a JSON document."""
    if args.quiet:
        return lambda *values, **kwargs: None
    return functools.partial(print, file=sys.stderr if args.json else sys.stdout)


def _print_json(document: dict[str, Any]) -> None:
    print(_json(document))


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, default=str)


def _print_table(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    """Print columns of text, as wide as their contents on a terminal, two spaces in."""
    lines = [header, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (text + " " * (width - _width(text)) for text, width in zip(line, widths, strict=True))
        print("  " + "  ".join(cells).rstrip())


def _width(text: str) -> int:
    """Count the places of text on a terminal: East Asian wide letters take two, combining ones none."""
    return sum(
        1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text if not unicodedata.combining(letter)
    )


COMMANDS = {
    "demo": (_demo, _demo_arguments),
    "fetch": (_fetch, _fetch_arguments),
    "train": (_train, _train_arguments),
    "tune": (_tune, _tune_arguments),
    "recommend": (_recommend, _recommend_arguments),
    "similar": (_similar, _similar_arguments),
    "evaluate": (_evaluate, _evaluate_arguments),
    "bench": (_bench, _bench_arguments),
    "info": (_info, _info_arguments),
}
