"""What several commands read: files of plays, and saved models with labels."""

import argparse
import os
from typing import TYPE_CHECKING

from alscore.cli import console

if TYPE_CHECKING:
    from alscore.interactions import Interactions
    from alscore.recommender import Recommender


def add_items_option(parser: argparse.ArgumentParser, note: str = "") -> None:
    """Add ``--items``, which says what the items of a file of plays are called."""
    parser.add_argument(
        "--items", choices=("name", "mbid"), default="name", help=f"labels of the items{note}; default: %(default)s"
    )


def read_and_report(path: str | os.PathLike[str], say: console.Print, **options: str) -> "Interactions":
    """Read a file of plays; print how many lines were read, kept and rejected."""
    from alscore import datasets

    say(f"reading {path}", flush=True)
    interactions = datasets.lastfm_360k(path, **options)
    say(interactions.report)
    say(f"{interactions.n_users:,} users × {interactions.n_items:,} items, {interactions.nnz:,} entries\n")
    return interactions


def load_recommender(path: str) -> tuple["Recommender", "Interactions"]:
    """Read a fitted Recommender; return it and its interactions."""
    from alscore.persistence import load
    from alscore.recommender import Recommender

    recommender = load(path)
    if not isinstance(recommender, Recommender) or recommender.interactions is None:
        raise ValueError(f"{path} holds a model without labels; save a fitted alscore.Recommender")
    return recommender, recommender.interactions
