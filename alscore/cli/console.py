"""What all commands share: types of arguments, messages, tables, JSON, and checks of output files."""

import argparse
import contextlib
import functools
import importlib.util
import json
import math
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

Print = Callable[..., None]  # takes the arguments of print


def _integer(least: int, text: str) -> int:
    if not text.strip().isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
    return int(text)


def _number(above: bool, text: str) -> float:
    with contextlib.suppress(ValueError):
        value = float(text)
        if math.isfinite(value) and (value > 0 or (value == 0 and not above)):
            return value
    raise argparse.ArgumentTypeError(f"must be a finite number {'above' if above else 'of at least'} 0, not {text!r}")


at_least_1, at_least_0 = functools.partial(_integer, 1), functools.partial(_integer, 0)
above_zero, not_negative = functools.partial(_number, True), functools.partial(_number, False)


def names(text: str) -> list[str]:
    """Read names separated by commas."""
    return [name for name in text.split(",") if name]


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` and ``--quiet``, which `messages` reads."""
    parser.add_argument("--json", action="store_true", help="print one JSON document; messages go to stderr")
    parser.add_argument("--quiet", action="store_true", help="print no progress and no messages")


def messages(args: argparse.Namespace) -> Print:
    """Return a function that prints messages: nothing with ``--quiet``, to stderr with ``--json``."""
    if args.quiet:
        return lambda *values, **kwargs: None
    return functools.partial(print, file=sys.stderr if args.json else sys.stdout)


def to_json(document: dict[str, Any]) -> str:
    """Return the text of a JSON document."""
    return json.dumps(document, indent=2, default=str)


def print_json(document: dict[str, Any]) -> None:
    """Print a JSON document."""
    print(to_json(document))


def print_table(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    """Print a table, indented by two spaces. Columns are as wide as their contents are on a terminal."""
    lines = [header, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (text + " " * (width - _width(text)) for text, width in zip(line, widths, strict=True))
        print("  " + "  ".join(cells).rstrip())


def _width(text: str) -> int:
    """Count the places of `text` on a terminal: wide East Asian letters take two, combining characters none."""
    return sum(
        1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text if not unicodedata.combining(letter)
    )


def check_output(path: str, source: str | os.PathLike[str], kind: str) -> None:
    """Raise a ValueError if the file that a command would write is the file that it reads."""
    if os.path.exists(path) and os.path.samefile(source, path):
        raise ValueError(f"{path} is the file to read: give the {kind} another name")


def require_matplotlib() -> None:
    """Raise an ImportError with the remedy if matplotlib is not installed."""
    if not importlib.util.find_spec("matplotlib"):
        raise ImportError("--plot needs matplotlib: pip install 'alscore[bench]'")
