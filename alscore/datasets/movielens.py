"""Reader for the MovieLens data sets (Harper, Konstan, 2015; doi:10.1145/2827872)."""

import os
from pathlib import Path

from alscore._support.checks import require
from alscore.datasets._archives import zip_names
from alscore.datasets._delimited import POSITIVE, TEXT, Field, Layout, Lines, like, read_interactions
from alscore.interactions import Interactions

_RATING = {
    "user": POSITIVE,
    "item": POSITIVE,
    "rating": Field(
        "a positive decimal number", like(r"^([1-9][0-9]?(\.[0-9]{1,6})?|0\.0{0,5}[1-9][0-9]{0,5})$", "float32")
    ),
    "timestamp": Field("whole seconds", like("^[0-9]{1,15}$", "int64"), varied=True),
}
_MOVIE = {"id": POSITIVE, "name": TEXT, "genres": None}
_CSV = (
    Layout("ratings.csv", _RATING, b"userId,movieId,rating,timestamp", b","),
    Layout("movies.csv", _MOVIE, b"movieId,title,genres", b",", quoted=True),
)
_DAT = (
    Layout("ratings.dat", _RATING, delimiter=b"::"),
    Layout("movies.dat", _MOVIE, delimiter=b"::", latin_1=True),
)


def movielens(path: str | os.PathLike[str], items: str = "title", errors: str = "report") -> Interactions:
    """Read the ratings of a MovieLens set: 1M, 10M, 20M, 25M, 32M, latest or latest-small.

    Ratings are no implicit feedback: a low one says that a film was seen, and not liked. Make it that of all films
    seen, or of those liked::

        frame = movielens(path).to_pandas()
        seen = Interactions.from_pandas(frame, "user", "item", timestamp="timestamp")
        liked = Interactions.from_pandas(frame[frame["value"] >= 4], "user", "item", timestamp="timestamp")

    Of several ratings of a film by the same user the latest counts. No line is lost silently: see
    `Interactions.report`, whose line numbers count a header, which is not read as a line of data.

    Parameters
    ----------
    path : str or path
        The original archive (``.zip``, read in place), or a folder that holds its files at any depth, plain or
        gzipped; for ``items="id"`` the file of ratings, under its name, will do.
    items : {"title", "id"}
        Films by title, from ``movies.csv`` or ``movies.dat``, or by number. A title that several films have is followed
        by the number: "Hamlet (2000) [3598]".
    errors : {"report", "raise"}
        What to do about lines that are no valid rating: leave them out and list them in `report`, or refuse the file.
        So with lines of the file of titles; ratings of a film that therefore has no title are no valid ones. In
        `report` its invalid lines come first, with reasons that begin with its name, and are counted as read; no others
        are.

    Returns
    -------
    Interactions
        Users are integers, items strings or integers, both ascending; values are ratings, 0.5 to 5 stars, with
        `timestamps`.

    Raises
    ------
    FileNotFoundError, ValueError
        As `lastfm_360k`, for either file; also another header, an id with two titles, the file of ratings alone where
        titles are asked for, and a folder that holds ratings in both forms.
    """
    require(items in ("title", "id"), "items", "'title' or 'id'", items)
    ratings, movies = _layouts(Path(path).expanduser())
    lines = Lines(path, ratings, errors, names=movies if items == "title" else None)
    return read_interactions(lines, lines, "rating", "timestamp", duplicates="last")


def _layouts(path: Path) -> tuple[Layout, Layout]:
    """Return the layouts of ratings and titles, which are known by the names of their files."""
    names = [path.name]
    if path.is_dir():
        names = [file.name for file in path.rglob("ratings.*")]
    elif path.is_file():
        names = zip_names(path) or names
    names = [name.removesuffix(".gz") for name in names]
    found = [layouts for layouts in (_CSV, _DAT) if layouts[0].file in names]
    if len(found) > 1:
        raise ValueError(f"{path} holds both ratings.csv and ratings.dat; give the path of one")
    return found[0] if found else _CSV
