"""Reader for the Last.fm data set of HetRec 2011, 2,000 users (Cantador, Brusilovsky, Kuflik, 2011)."""

import os
from typing import TYPE_CHECKING

from alscore._support.checks import require
from alscore.datasets._delimited import (
    OPTIONAL_TEXT,
    POSITIVE,
    TEXT,
    Field,
    Layout,
    Lines,
    like,
    read_interactions,
    read_table,
)
from alscore.interactions import Interactions, Report

if TYPE_CHECKING:
    import pandas as pd

_PLAYS = Layout(
    "user_artists.dat",
    {"user": POSITIVE, "item": POSITIVE, "plays": POSITIVE},
    header=b"userID\tartistID\tweight",
)
_TABLES = {
    "artists": Layout(
        "artists.dat",
        {"id": POSITIVE, "name": TEXT, "url": OPTIONAL_TEXT, "picture_url": OPTIONAL_TEXT},
        header=b"id\tname\turl\tpictureURL",
    ),
    "tags": Layout("tags.dat", {"id": POSITIVE, "name": TEXT}, header=b"tagID\ttagValue", latin_1=True),
    "tag_assignments": Layout(
        "user_taggedartists-timestamps.dat",
        {
            "user": POSITIVE,
            "artist": POSITIVE,
            "tag": POSITIVE,
            "timestamp": Field("whole milliseconds", like("^-?[0-9]{1,15}$", "int64"), varied=True),
        },
        header=b"userID\tartistID\ttagID\ttimestamp",
    ),
    "friends": Layout("user_friends.dat", {"user": POSITIVE, "friend": POSITIVE}, header=b"userID\tfriendID"),
}


def hetrec_lastfm_2k(path: str | os.PathLike[str], items: str = "name", errors: str = "report") -> Interactions:
    """Read the plays of HetRec 2011's Last.fm set: ``user TAB artist TAB plays``.

    Lines of the same user and artist are summed. No line is lost silently: see `Interactions.report`, whose line
    numbers count the header, which is not read as a line of data.

    Parameters
    ----------
    path : str or path
        The original archive (``.zip``, read in place), or a folder that holds its files at any depth, plain or
        gzipped; for ``items="id"`` the file of plays will do.
    items : {"name", "id"}
        Artists by name, from ``artists.dat``, or by number. Had several one name, it would be followed by the number
        in brackets.
    errors : {"report", "raise"}
        What to do about lines that are no valid play: leave them out and list them in `report`, or refuse the file.
        So with lines of ``artists.dat``; plays of an artist who therefore has no name are no valid ones. In `report`
        its invalid lines come first, with reasons that begin with its name, and are counted as read; no others are.

    Returns
    -------
    Interactions
        Users are integers, items strings or integers, both ascending; values are plays.

    Raises
    ------
    FileNotFoundError, ValueError
        As `lastfm_360k`, for either file; also another header, an artist with two names, and the file of plays alone
        where names are asked for.
    """
    require(items in ("name", "id"), "items", "'name' or 'id'", items)
    lines = Lines(path, _PLAYS, errors, names=_TABLES["artists"] if items == "name" else None)
    return read_interactions(lines, lines, "plays")


def hetrec_lastfm_2k_table(
    path: str | os.PathLike[str], table: str, errors: str = "report"
) -> tuple["pd.DataFrame", Report]:
    """Read what else HetRec 2011's Last.fm set has to tell.

    Parameters
    ----------
    path : str or path
        As for `hetrec_lastfm_2k`, or the file of that table.
    table : {"artists", "tags", "tag_assignments", "friends"}
    errors : {"report", "raise"}
        As for `hetrec_lastfm_2k`.

    Returns
    -------
    pandas.DataFrame
        A row for each valid line, in the order of the file. Users, friends, artists, tags and ids are int64.

        - artists: id, name, url, picture_url (missing if empty)
        - tags: id, name
        - tag_assignments: user, artist, tag, timestamp (datetime64[ms, UTC]; some lie before Last.fm began)
        - friends: user, friend; each pair in both directions
    report : Report
        `report.rejected` lists each line that is no valid one, with its number and the reason.

    Raises
    ------
    FileNotFoundError, ValueError
        As `hetrec_lastfm_2k`.
    """
    require(table in _TABLES, "table", " or ".join(map(repr, _TABLES)), table)
    frame, report = read_table(path, _TABLES[table], errors)
    if table == "tag_assignments":
        frame["timestamp"] = frame["timestamp"].astype("datetime64[ms]").dt.tz_localize("UTC")
    return frame, report
