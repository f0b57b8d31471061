"""Reader for the Last.fm data set of HetRec 2011, with 2,000 users (Cantador, Brusilovsky, Kuflik, 2011)."""

import os

import pandas as pd

from alscore._support.checks import require
from alscore.datasets._delimited import (
    OPTIONAL_TEXT,
    POSITIVE,
    TEXT,
    Field,
    FileFormat,
    Lines,
    like,
    read_dataframe,
    read_interactions,
)
from alscore.interactions import Interactions, Report

PLAYS_FORMAT = FileFormat(
    "user_artists.dat",
    {"user": POSITIVE, "item": POSITIVE, "plays": POSITIVE},
    header=b"userID\tartistID\tweight",
)
TABLE_FORMATS = {
    "artists": FileFormat(
        "artists.dat",
        {"id": POSITIVE, "name": TEXT, "url": OPTIONAL_TEXT, "picture_url": OPTIONAL_TEXT},
        header=b"id\tname\turl\tpictureURL",
    ),
    "tags": FileFormat("tags.dat", {"id": POSITIVE, "name": TEXT}, header=b"tagID\ttagValue", latin_1=True),
    "tag_assignments": FileFormat(
        "user_taggedartists-timestamps.dat",
        {
            "user": POSITIVE,
            "artist": POSITIVE,
            "tag": POSITIVE,
            "timestamp": Field("is not whole milliseconds", like("^-?[0-9]{1,15}$", "int64"), mostly_unique=True),
        },
        header=b"userID\tartistID\ttagID\ttimestamp",
    ),
    "friends": FileFormat("user_friends.dat", {"user": POSITIVE, "friend": POSITIVE}, header=b"userID\tfriendID"),
}


def hetrec_lastfm_2k(path: str | os.PathLike[str], items: str = "name", errors: str = "report") -> Interactions:
    """Read the plays of HetRec 2011's Last.fm set: ``user TAB artist TAB plays``.

    Lines of the same user and artist are summed. Line numbers in `Interactions.report` count the header as line 1; it
    is not counted as read.

    Parameters
    ----------
    path : str or path
        The original archive (``.zip``, read in place), or a folder that holds its files at any depth, plain or
        gzipped. With ``items="id"``, the file of plays is enough.
    items : {"name", "id"}
        The label of an artist: the name, from ``artists.dat``, or the number. A name that several artists share is
        followed by the number in brackets.
    errors : {"report", "raise"}
        Leave out the lines that are not valid and list them in `Interactions.report`, or raise a ValueError. This
        includes the lines of ``artists.dat``. Plays of an artist without a name are not valid. In the report, the
        rejected lines of ``artists.dat`` come first, with reasons that begin with the name of the file. They are
        counted as read; its valid lines are not.

    Returns
    -------
    Interactions
        The users are integers, the items strings or integers, both in ascending order. The values are plays.

    Raises
    ------
    FileNotFoundError, ValueError
        Same errors as `lastfm_360k`, for either file. Also a ValueError if a header is not the expected one, an artist
        has two lines in ``artists.dat``, or `path` is the file of plays alone and names are needed.
    """
    require(items in ("name", "id"), "items", "'name' or 'id'", items)
    names = TABLE_FORMATS["artists"] if items == "name" else None
    return read_interactions(Lines(path, PLAYS_FORMAT, errors, names), "plays")


def hetrec_lastfm_2k_table(
    path: str | os.PathLike[str], table: str, errors: str = "report"
) -> tuple[pd.DataFrame, Report]:
    """Read one of the other tables of HetRec 2011's Last.fm set.

    Parameters
    ----------
    path : str or path
        Same as for `hetrec_lastfm_2k`, or the file of the table.
    table : {"artists", "tags", "tag_assignments", "friends"}
        The table to read.
    errors : {"report", "raise"}
        Leave out the lines that are not valid and list them in the report, or raise a ValueError.

    Returns
    -------
    pandas.DataFrame
        A row for each valid line, in the order of the file. Users, friends, artists, tags and ids are int64.

        - artists: id, name, url, picture_url (missing if empty)
        - tags: id, name
        - tag_assignments: user, artist, tag, timestamp (datetime64[ms, UTC]; some are before Last.fm began)
        - friends: user, friend; each pair in both directions
    report : Report
        `report.rejected` lists each rejected line with its number and the reason.

    Raises
    ------
    FileNotFoundError, ValueError
        Same errors as `hetrec_lastfm_2k`.
    """
    require(table in TABLE_FORMATS, "table", " or ".join(map(repr, TABLE_FORMATS)), table)
    return read_table_of(Lines(path, TABLE_FORMATS[table], errors))


def read_table_of(lines: Lines) -> tuple[pd.DataFrame, Report]:
    """Return the table of `lines`, with timestamps if it has some, and the report."""
    frame, report = read_dataframe(lines)
    if "timestamp" in frame:
        frame["timestamp"] = frame["timestamp"].astype("datetime64[ms]").dt.tz_localize("UTC")
    return frame, report
