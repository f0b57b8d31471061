"""The command line: ``alscore COMMAND …`` or ``python -m alscore COMMAND …``.

`main` runs a command of COMMANDS. The modules of this package add a command's arguments and run it. They import numpy,
pandas and the parts of alscore inside their functions, because ``alscore --help`` must not wait for them.
"""

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from alscore._support.version import __version__
from alscore.cli import bench, evaluate, fetch, info, recommend, train


class Command(NamedTuple):
    """A command: `run` is called with the parsed arguments that `add_arguments` has declared."""

    run: Callable[[argparse.Namespace], None]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    help: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : list of str, optional
        The arguments. Default: those of the process.

    Returns
    -------
    int
        The exit code: 0 success, 1 an error in the data or the model, 130 interrupted, 141 the reader closed stdout.

    Raises
    ------
    SystemExit
        With the exit code 2: wrong usage. With 0: ``--help`` or ``--version``.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # labels can be printed even on a terminal without UTF-8
    args = _parser().parse_args(argv, argparse.Namespace(debug=False))
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout again when it ends, and would print an error.
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
    for name, (run, add_arguments, help) in COMMANDS.items():
        command = commands.add_parser(name, parents=[common], help=help, description=help)
        add_arguments(command)
        command.set_defaults(run=run)
    return parser


COMMANDS = {
    "demo": Command(
        train.run_demo, train.demo_arguments, "make a file of plays, read it, train and recommend; needs no data"
    ),
    "fetch": Command(
        fetch.run,
        fetch.add_arguments,
        "download a published data set if it is missing, and print the path of its archive",
    ),
    "train": Command(train.run_train, train.train_arguments, "train a model on a file of plays and save it"),
    "tune": Command(
        train.run_tune,
        train.tune_arguments,
        "search the parameters that rank a held-out fifth of each user's plays best",
    ),
    "recommend": Command(
        recommend.run_recommend, recommend.recommend_arguments, "recommend items to users of a trained model"
    ),
    "similar": Command(
        recommend.run_similar,
        recommend.similar_arguments,
        "find the items of a trained model that are most like others",
    ),
    "evaluate": Command(evaluate.run, evaluate.add_arguments, "evaluate a trained model on plays that it has not seen"),
    "bench": Command(bench.run, bench.add_arguments, "compare the speed of alscore and other packages on this machine"),
    "info": Command(info.run, info.add_arguments, "show versions, kernels, BLAS and threads, for a bug report"),
}
