"""``alscore train``, ``alscore tune`` and ``alscore demo``: from a file of plays to a model."""

import argparse
import contextlib
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alscore._support.train_options import MODEL_OPTIONS, ModelOption
from alscore.cli import console, inputs

if TYPE_CHECKING:
    import pandas as pd

    from alscore.interactions import Interactions
    from alscore.recommender import Recommender
    from alscore.tuning import Tuned


def demo_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``alscore demo``."""
    parser.add_argument(
        "--users", type=console.at_least_1, default=20_000, help="number of users; default: %(default)s"
    )
    parser.add_argument(
        "--items", type=console.at_least_1, default=15_000, help="number of items; default: %(default)s"
    )
    parser.add_argument(
        "--factors", type=console.at_least_1, default=64, help="length of the factors; default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the plays and of the factors; default: %(default)s"
    )


def run_demo(args: argparse.Namespace) -> None:
    """Make plays, write and read them as a file, train, and print recommendations and similar artists."""
    import numpy as np

    from alscore import datasets
    from alscore.als import AlternatingLeastSquares
    from alscore.recommender import Recommender

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plays.tsv")
        datasets.write_lastfm_360k(datasets.synthetic(args.users, args.items, seed=args.seed), path)
        interactions = inputs.read_and_report(path, print)

    # With a linear confidence, few but very large counts would outweigh all others.
    recommender = Recommender(
        AlternatingLeastSquares(args.factors, regularization=30, confidence="log", random_state=args.seed)
    )
    sweeps = _fit(recommender, interactions, print)
    median = np.median([sweep["seconds"] for sweep in sweeps])
    print(f"\na sweep takes {median:.3f} s (median of {len(sweeps)})")

    favourites = []
    for user in np.linspace(0, interactions.n_users - 1, 3, dtype=int):
        row = interactions.rows([user])
        most_played = interactions.items[row.indices[np.argsort(-row.data, kind="stable")[:5]]]
        recommended = recommender.recommend([interactions.users[user]], n=5)["item"]
        print(f"\nuser {interactions.users[user]}")
        console.print_table(("plays most", "should try"), zip_longest(most_played, recommended, fillvalue=""))
        favourites.append(most_played[0])
    similar = recommender.similar_items(favourites, n=3)
    print()
    console.print_table(
        ("artist", "similar artist", "cosine"),
        ((row.item, row.similar_item, f"{row.score:.3f}") for row in similar.itertuples()),
    )


def train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``alscore train``."""
    _add_source(parser, "Last.fm 360K: .tar.gz, .tsv, .tsv.gz or folder")
    parser.add_argument("-o", "--output", metavar="MODEL", required=True, help="file for the trained model")
    console.add_output_options(parser)
    model = parser.add_argument_group("model", "parameters of alscore.AlternatingLeastSquares, with its defaults")
    for option in MODEL_OPTIONS:
        _add_model_option(model, option, option.kind)


def _add_source(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("path", metavar="PATH", help=help)
    inputs.add_items_option(parser)


def _add_model_option(group: Any, option: ModelOption, kind: Callable[[str], Any]) -> None:
    metavar = option.flag[2:].split("-")[-1].upper()
    group.add_argument(
        option.flag, dest=option.parameter, metavar=metavar, type=kind, default=argparse.SUPPRESS, help=option.help
    )


def run_train(args: argparse.Namespace) -> None:
    """Read a file of plays, train and save the model."""
    from alscore._support.files import atomic_writer
    from alscore.als import AlternatingLeastSquares
    from alscore.datasets.lastfm import plays_file
    from alscore.recommender import Recommender

    started = time.perf_counter()
    say = console.messages(args)
    names = AlternatingLeastSquares().get_params()
    params = {name: value for name, value in vars(args).items() if name in names}
    recommender = Recommender(AlternatingLeastSquares(**params))
    console.check_output(args.output, plays_file(args.path), "model")
    # The output is opened first: a path that cannot be written to fails before the training.
    with atomic_writer(args.output) as file:
        interactions = inputs.read_and_report(args.path, say, items=args.items)
        sweeps = _fit(recommender, interactions, say)
        recommender.save(file)
    seconds = time.perf_counter() - started
    say(f"\n{args.output}: {os.path.getsize(args.output) / 1e6:.1f} MB, {seconds:.1f} s in all")
    if args.json:
        report = interactions.report
        assert report is not None  # every reader sets it
        console.print_json(
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


def _fit(recommender: "Recommender", interactions: "Interactions", say: console.Print) -> list[dict[str, float]]:
    """Fit; print the seconds and the loss of each sweep, and return them."""
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


def tune_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``alscore tune``."""
    _add_source(parser, "file of plays, as for alscore train")
    parser.add_argument(
        "--trials", type=console.at_least_1, default=30, help="number of trials in the study; default: %(default)s"
    )
    parser.add_argument("--metric", default="ndcg@10", help="metric and cut-off to maximise; default: %(default)s")
    parser.add_argument(
        "--study", metavar="FILE", help="SQLite file that keeps the trials; a later search continues from it"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the metric over each parameter, a PNG; needs matplotlib")
    parser.add_argument(
        "--iterations", type=console.at_least_1, default=15, help="maximum number of sweeps; default: %(default)s"
    )
    parser.add_argument("--threads", type=console.at_least_0, default=0, help="0: all CPUs that this process may use")
    parser.add_argument("--seed", type=console.at_least_0, default=0, help="seed of the search; default: %(default)s")
    console.add_output_options(parser)
    model = parser.add_argument_group(
        "model",
        "a fixed value, or values to search: a range of numbers LOW,HIGH, or names NAME,NAME,...; default: as in "
        "alscore.tuning.SPACE, or the default of the model",
    )
    for option in MODEL_OPTIONS:
        if option.parameter not in ("iterations", "num_threads", "random_state"):
            _add_model_option(model, option, functools.partial(_value_or_space, option.kind))


def _value_or_space(kind: type, text: str) -> Any:
    """Return one value, a tuple of numbers or a list of names: see `alscore.tuning.tune`."""
    try:
        values = [kind(value) for value in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be {kind.__name__} or a range LOW,HIGH, not {text!r}") from error
    return values[0] if len(values) == 1 else values if kind is str else tuple(values)


def run_tune(args: argparse.Namespace) -> None:
    """Search parameters; print the best trials and the command that trains the best one."""
    from alscore import splits, tuning
    from alscore._support.files import atomic_writer
    from alscore.als import AlternatingLeastSquares

    _check_tune(args)
    say = console.messages(args)
    model = AlternatingLeastSquares(num_threads=args.threads)
    given = {name: value for name, value in vars(args).items() if name in model.get_params()}
    model.set_params(**{name: value for name, value in given.items() if not isinstance(value, list | tuple)})
    space = {name: value for name, value in {**tuning.SPACE, **given}.items() if isinstance(value, list | tuple)}
    with atomic_writer(args.plot) if args.plot else contextlib.nullcontext() as plot:
        tuned = tuning.tune(
            splits.leave_k_out(inputs.read_and_report(args.path, say, items=args.items), 0.2),
            args.metric,
            args.trials,
            space=space,
            model=model,
            storage=args.study,
            random_state=args.seed,
            show_progress=sys.stderr.isatty() and not args.quiet,
        )
        table = tuned.table()
        if plot:
            tuned.plot().savefig(plot, format="png")
    _print_trials(args, tuned, table)
    if len(table) < args.trials:
        raise KeyboardInterrupt(f"after {len(table)} of {args.trials} trials")


def _check_tune(args: argparse.Namespace) -> None:
    """Raise the errors that would otherwise appear only after the file is read."""
    from alscore import tuning
    from alscore.datasets.lastfm import plays_file

    tuning.require_optuna()
    tuning.parsed(args.metric)
    if args.plot:
        console.require_matplotlib()
    for path, kind in ((args.study, "study"), (args.plot, "plot")):
        if path:
            console.check_output(path, plays_file(args.path), kind)
    if args.study and args.plot and os.path.realpath(args.study) == os.path.realpath(args.plot):
        raise ValueError(f"{args.plot} is the study: give the plot another name")


def _print_trials(args: argparse.Namespace, tuned: "Tuned", table: "pd.DataFrame") -> None:
    command = f"{tuned.command(args.path)} --items {args.items}"
    if args.json:
        records = json.loads(table.to_json(orient="records", double_precision=15))  # null for missing figures
        console.print_json({"trials": records, "command": command})
        return
    console.print_table(
        tuple(map(str, table)),
        (
            tuple(f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row)
            for row in table.head(10).itertuples(index=False)
        ),
    )
    print(f"\nto train the best of {len(table)} trials:\n\n{command}")
