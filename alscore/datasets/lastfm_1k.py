"""Reader for the Last.fm data set of all plays of 1,000 users (Òscar Celma, 2010; doi:10.5281/zenodo.6090214)."""

import os

import pyarrow as pa

from alscore._support.checks import require
from alscore.datasets._delimited import OPTIONAL_TEXT, Field, FileFormat, Lines, like, read_interactions
from alscore.interactions import Interactions, Report

USER = Field("is not user_ and six digits", like("^user_[0-9]{6}$"))
_parse_timestamp = like("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")


def _instants(texts: pa.Array) -> pa.Array:
    return _cast_to_seconds(_parse_timestamp(texts))


def _cast_to_seconds(texts: pa.Array) -> pa.Array:
    """Cast to timestamps in seconds; null for an instant that does not exist, such as February 30th."""
    seconds = pa.timestamp("s", "UTC")
    try:
        return texts.cast(seconds)
    except pa.ArrowInvalid:
        middle = len(texts) // 2
        if not middle:
            return pa.nulls(1, seconds)
        return pa.concat_arrays([_cast_to_seconds(texts[:middle]), _cast_to_seconds(texts[middle:])])


EVENTS_FORMAT = FileFormat(
    "userid-timestamp-artid-artname-traid-traname.tsv",
    {
        "user": USER,
        "timestamp": Field("is not YYYY-MM-DDThh:mm:ssZ", _instants, mostly_unique=True),
        "artist_id": OPTIONAL_TEXT,
        "artist": OPTIONAL_TEXT,
        "track_id": OPTIONAL_TEXT,
        "track": OPTIONAL_TEXT,
    },
    any_of=("artist", "artist_id"),
)
_BY_NAME = EVENTS_FORMAT._replace(
    fields={**EVENTS_FORMAT.fields, "track_id": None, "track": None}, as_item=True, rare_fallback=True
)
_BY_MBID = _BY_NAME._replace(any_of=("artist_id", "artist"), rare_fallback=False)
PLAY_COUNT_FORMATS = {"name": _BY_NAME, "mbid": _BY_MBID}


def lastfm_1k(path: str | os.PathLike[str], items: str = "name", errors: str = "report") -> Interactions:
    """Read the events of Last.fm 1K as play counts: how often each user played each artist, and when last.

    Lines end with LF or CRLF. All other characters in a name are text and stay unchanged, quotes and CR included.
    Memory grows with the number of entries and of distinct labels, not with the 19 million events.

    Parameters
    ----------
    path : str or path
        The original archive (``.tar.gz``, read in place), the events file (plain or gzipped), or a folder that
        holds it at any depth.
    items, errors
        Same as for `lastfm_360k`.

    Returns
    -------
    Interactions
        The labels are strings in ascending order, the values are plays. `timestamps` has the time of the last play, in
        seconds since 1970 (UTC). `report.rejected` lists each rejected line with its number and the reason.

    Raises
    ------
    FileNotFoundError, ValueError
        Same errors as `lastfm_360k`.

    See Also
    --------
    lastfm_1k_events : All events, with their tracks.
    """
    require(items in PLAY_COUNT_FORMATS, "items", "'name' or 'mbid'", items)
    return read_play_counts(Lines(path, PLAY_COUNT_FORMATS[items], errors))


def read_play_counts(lines: Lines) -> Interactions:
    """Return the Interactions of the events in `lines`."""
    return read_interactions(lines, "plays", "timestamp", per_block=_count_plays)


def _count_plays(events: pa.Table) -> pa.Table:
    """Count the plays of each user and item, and take the time of the last one."""
    seconds = events["timestamp"].cast(pa.int64())
    plays = pa.table({"user": events["user"], "item": events["item"], "timestamp": seconds})
    counted = plays.group_by(["user", "item"], use_threads=False).aggregate(
        [("timestamp", "max"), ("timestamp", "count")]
    )
    return counted.rename_columns(["user", "item", "timestamp", "plays"])


def lastfm_1k_events(path: str | os.PathLike[str], errors: str = "report") -> tuple[pa.Table, Report]:
    """Read the events of Last.fm 1K, each with its time and its track.

    Parameters
    ----------
    path, errors
        Same as for `lastfm_1k`.

    Returns
    -------
    events : pyarrow.Table
        A row for each valid event, in the order of the file, with the columns `user`, `timestamp` (seconds, UTC),
        `artist_id`, `artist`, `track_id` and `track`. An empty field is null; many MBIDs are empty. The text columns
        are dictionary-encoded: an event takes 28 bytes, and ``events.to_pandas()`` returns them as categories.
    report : Report
        `report.rejected` lists each rejected line with its number and the reason.

    Raises
    ------
    FileNotFoundError, ValueError
        Same errors as `lastfm_1k`.
    """
    return read_events(Lines(path, EVENTS_FORMAT, errors))


def read_events(lines: Lines) -> tuple[pa.Table, Report]:
    """Return the table of the events in `lines`, and the report."""
    events = pa.concat_tables(lines).unify_dictionaries()
    return events, lines.report(len(events))
