"""``alscore info``: what a bug report must say about an installation."""

import argparse

from alscore.cli import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``alscore info``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> None:
    """Print versions, kernels, BLAS and threads."""
    from alscore.cli import installation

    collected = installation.collect()
    if args.json:
        console.print_json(collected)
    else:
        print(*installation.lines(collected), sep="\n")
