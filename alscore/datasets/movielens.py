"""Reader for the MovieLens data sets (Harper, Konstan, 2015; doi:10.1145/2827872)."""

import os
from pathlib import Path

from alscore._support.checks import require
from alscore.datasets._archives import zip_names
from alscore.datasets._delimited import POSITIVE, TEXT, Field, FileFormat, Lines, like, read_interactions
from alscore.interactions import Interactions

_RATING = {
    "user": POSITIVE,
    "item": POSITIVE,
    "rating": Field(
        "is not a positive decimal number", like(r"^([1-9][0-9]?(\.[0-9]{1,6})?|0\.0{0,5}[1-9][0-9]{0,5})$", "float32")
    ),
    "timestamp": Field("is not whole seconds", like("^[0-9]{1,15}$", "int64"), mostly_unique=True),
}
_MOVIE = {"id": POSITIVE, "name": TEXT, "genres": None}
CSV_FORMATS = (
    FileFormat("ratings.csv", _RATING, b"userId,movieId,rating,timestamp", b","),
    FileFormat("movies.csv", _MOVIE, b"movieId,title,genres", b",", quoted=True),
)
DAT_FORMATS = (
    FileFormat("ratings.dat", _RATING, delimiter=b"::"),
    FileFormat("movies.dat", _MOVIE, delimiter=b"::", latin_1=True),
)


def movielens(path: str | os.PathLike[str], items: str = "title", errors: str = "report") -> Interactions:
    """Read the ratings of a MovieLens set: 1M, 10M, 20M, 25M, 32M, latest or latest-small.

    Ratings are not implicit feedback: a low rating says that a user saw a film and did not like it. Turn them into
    implicit feedback of all films seen, or of the films liked::

        frame = movielens(path).to_pandas()
        seen = Interactions.from_pandas(frame, "user", "item", timestamp="timestamp")
        liked = Interactions.from_pandas(frame[frame["value"] >= 4], "user", "item", timestamp="timestamp")

    If a user rated a film several times, the latest rating is kept. Line numbers in `Interactions.report` count a
    header as line 1; it is not counted as read.

    Parameters
    ----------
    path : str or path
        The original archive (``.zip``, read in place), or a folder that holds its files at any depth, plain or
        gzipped. With ``items="id"``, the file of ratings under its original name is enough.
    items : {"title", "id"}
        The label of a film: the title, from ``movies.csv`` or ``movies.dat``, or the number. A title that several
        films share is followed by the number: "Hamlet (2000) [3598]".
    errors : {"report", "raise"}
        Leave out the lines that are not valid and list them in `Interactions.report`, or raise a ValueError. This
        includes the lines of the file of titles. Ratings of a film without a title are not valid. In the report, the
        rejected lines of the file of titles come first, with reasons that begin with the name of the file. They are
        counted as read; its valid lines are not.

    Returns
    -------
    Interactions
        The users are integers, the items strings or integers, both in ascending order. The values are ratings, from
        0.5 to 5 stars; `timestamps` has their times, in seconds since 1970 (UTC).

    Raises
    ------
    FileNotFoundError, ValueError
        Same errors as `lastfm_360k`, for either file. Also a ValueError if a header is not the expected one, an id has
        two lines in the file of titles, `path` is the file of ratings alone and titles are needed, or a folder holds
        ratings in both forms.
    """
    require(items in ("title", "id"), "items", "'title' or 'id'", items)
    ratings, movies = _formats_in(Path(path).expanduser())
    return read_ratings(Lines(path, ratings, errors, names=movies if items == "title" else None))


def read_ratings(lines: Lines) -> Interactions:
    """Return the Interactions of the ratings in `lines`."""
    return read_interactions(lines, "rating", "timestamp", duplicates="last")


def _formats_in(path: Path) -> tuple[FileFormat, FileFormat]:
    """Return the formats of ratings and titles, which the names of the files tell."""
    names = [path.name]
    if path.is_dir():
        names = [file.name for file in path.rglob("ratings.*")]
    elif path.is_file():
        names = zip_names(path) or names
    names = [name.removesuffix(".gz") for name in names]
    matches = [formats for formats in (CSV_FORMATS, DAT_FORMATS) if formats[0].file in names]
    if len(matches) > 1:
        raise ValueError(f"{path} holds both ratings.csv and ratings.dat; give the path of one")
    return matches[0] if matches else CSV_FORMATS
