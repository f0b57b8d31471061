"""Reader for the Last.fm data set of all that 1,000 users played (Òscar Celma, 2010; doi:10.5281/zenodo.6090214)."""

import os
from typing import TYPE_CHECKING

from alscore._support.checks import require
from alscore.datasets._delimited import OPTIONAL_TEXT, Field, Layout, Lines, like, read_interactions
from alscore.interactions import Interactions, Report

if TYPE_CHECKING:
    import pyarrow as pa

USER = Field("user_ and six digits", like("^user_[0-9]{6}$"))
_TIMESTAMP = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"


def _instants(texts: "pa.Array") -> "pa.Array":
    return _cast(like(_TIMESTAMP)(texts))


def _cast(texts: "pa.Array") -> "pa.Array":
    """Cast to seconds, with null for what has the form but is no instant, such as February 30th."""
    import pyarrow as pa

    seconds = pa.timestamp("s", "UTC")
    try:
        return texts.cast(seconds)
    except pa.ArrowInvalid:
        middle = len(texts) // 2
        if not middle:
            return pa.nulls(1, seconds)
        return pa.concat_arrays([_cast(texts[:middle]), _cast(texts[middle:])])


_EVENTS = Layout(
    "userid-timestamp-artid-artname-traid-traname.tsv",
    {
        "user": USER,
        "timestamp": Field("YYYY-MM-DDThh:mm:ssZ", _instants, varied=True),
        "artist_id": OPTIONAL_TEXT,
        "artist": OPTIONAL_TEXT,
        "track_id": OPTIONAL_TEXT,
        "track": OPTIONAL_TEXT,
    },
    required=("artist", "artist_id"),
)
_BY_NAME = _EVENTS._replace(fields={**_EVENTS.fields, "track_id": None, "track": None}, as_item=True, spare="artist_id")
_BY_MBID = _BY_NAME._replace(required=("artist_id", "artist"), spare="")
_LAYOUTS = {"name": _BY_NAME, "mbid": _BY_MBID}


def lastfm_1k(path: str | os.PathLike[str], items: str = "name", errors: str = "report") -> Interactions:
    """Read the events of Last.fm 1K as play counts: how often each user played each artist, and when last.

    Lines end with LF (or CRLF); all else in a name, quotes and CR included, is text and kept to the letter. No line
    is lost silently: see `Interactions.report`. Memory grows with the entries and the distinct labels, not with the
    19 million events.

    Parameters
    ----------
    path : str or path
        The original archive (``.tar.gz``, read in place), the events file (plain or gzipped), or a folder that
        holds it at any depth.
    items : {"name", "mbid"}
        What identifies an artist: the name (the MBID where the name is empty), or the MusicBrainz identifier
        (the name where there is none).
    errors : {"report", "raise"}
        What to do about lines that are no valid event: leave them out and list them in `report`, or refuse the file.

    Returns
    -------
    Interactions
        Labels are strings in ascending order, values are plays, and `timestamps` are those of the last plays.

    Raises
    ------
    FileNotFoundError, ValueError
        As `lastfm_360k`.

    See Also
    --------
    lastfm_1k_events : All events, with their tracks.
    """
    require(items in _LAYOUTS, "items", "'name' or 'mbid'", items)
    lines = Lines(path, _LAYOUTS[items], errors)
    return read_interactions(lines, map(_plays, lines), "plays", "timestamp")


def _plays(events: "pa.Table") -> "pa.Table":
    """Count the plays of each user and item, and take the time of the last."""
    import pyarrow as pa

    seconds = events["timestamp"].cast(pa.int64())
    plays = pa.table({"user": events["user"], "item": events["item"], "timestamp": seconds})
    counted = plays.group_by(["user", "item"], use_threads=False).aggregate(
        [("timestamp", "max"), ("timestamp", "count")]
    )
    return counted.rename_columns(["user", "item", "timestamp", "plays"])


def lastfm_1k_events(path: str | os.PathLike[str], errors: str = "report") -> tuple["pa.Table", Report]:
    """Read the events of Last.fm 1K, each with its time and track.

    Parameters
    ----------
    path, errors
        As for `lastfm_1k`, and so are the errors raised.

    Returns
    -------
    events : pyarrow.Table
        A row for each valid event, in the order of the file: `user`, `timestamp` (seconds, UTC), `artist_id`,
        `artist`, `track_id` and `track`. What is empty in the file, as many MBIDs are, is null. Text columns are
        dictionary-encoded, so that an event takes 28 bytes, and ``events.to_pandas()`` makes categories of them.
    report : Report
    """
    import pyarrow as pa

    lines = Lines(path, _EVENTS, errors)
    events = pa.concat_tables(lines).unify_dictionaries()
    return events, lines.report(len(events))
