"""``alscore fetch``: the archive of a published data set."""

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``alscore fetch``."""
    parser.add_argument("name", choices=("lastfm-360k", "lastfm-1k", "hetrec-lastfm-2k"), help="name of the data set")
    parser.add_argument("--folder", help="folder for the archive; default: $ALSCORE_DATA, or else a cache folder")


def run(args: argparse.Namespace) -> None:
    """Download the archive if it is missing; print its path."""
    from alscore import datasets

    print(datasets.fetch(args.name, args.folder, show_progress=sys.stderr.isatty()))
