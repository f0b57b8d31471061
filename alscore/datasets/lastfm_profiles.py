"""Readers for who the users of Last.fm 360K and 1K are: gender, age, country, and when they registered."""

import os
import re
from datetime import date
from typing import TYPE_CHECKING

from alscore.datasets._delimited import OPTIONAL_TEXT, Field, Layout, like, read_table
from alscore.datasets.lastfm import SHA1
from alscore.datasets.lastfm_1k import USER
from alscore.interactions import Report

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_MONTHS = "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"


def _dates(texts: "pa.Array") -> "pa.Array":
    import pyarrow as pa

    return pa.array(map(_date, texts.to_pylist()), pa.date32()).cast(pa.timestamp("s"))


def _date(text: str) -> date | None:
    """Read a date like Feb 1, 2007: by hand, since strptime reads months in the language of the locale."""
    match = re.fullmatch("([A-Z][a-z]{2}) ([0-9]{1,2}), ([0-9]{4})", text)
    try:
        return match and date(int(match[3]), _MONTHS.index(match[1]) + 1, int(match[2]))
    except ValueError:
        return None


_360K = Layout(
    "usersha1-profile.tsv",
    {
        "user": SHA1,
        "gender": Field("m or f", like("^[mf]$"), optional=True),
        "age": Field("a whole number", like("^-?[0-9]{1,9}$", "int32"), optional=True),
        "country": OPTIONAL_TEXT,
        "registered": Field("a date such as Feb 1, 2007", _dates, optional=True),
    },
)
_1K = Layout(
    "userid-profile.tsv",
    {**_360K.fields, "user": USER},
    header=b"#id\tgender\tage\tcountry\tregistered",
)


def lastfm_360k_profiles(path: str | os.PathLike[str], errors: str = "report") -> tuple["pd.DataFrame", Report]:
    """Read the profiles of the users of Last.fm 360K.

    Parameters
    ----------
    path : str or path
        The original archive (``.tar.gz``, read in place), the profile file (plain or gzipped), or a folder that
        holds it at any depth.
    errors : {"report", "raise"}
        What to do about lines that are no valid profile: leave them out and list them in the report, or refuse the
        file.

    Returns
    -------
    profiles : pandas.DataFrame
        A row for each valid line, in the order of the file: `user` (text), `gender` ("f" or "m", categories), `age`
        (Int32; what users said, such as -1337), `country` (categories) and `registered` (datetime64[s], a day). What
        is empty in the file is missing.
    report : Report
        `report.rejected` lists each line that is no valid profile, with its number and the reason.

    Raises
    ------
    FileNotFoundError, ValueError
        As `lastfm_360k`.
    """
    return read_table(path, _360K, errors, categories=("gender", "country"))


def lastfm_1k_profiles(path: str | os.PathLike[str], errors: str = "report") -> tuple["pd.DataFrame", Report]:
    """Read the profiles of the users of Last.fm 1K.

    The first line of the file, a header, is not counted as read.

    Parameters
    ----------
    path, errors
        As for `lastfm_360k_profiles`, and so are the errors raised.

    Returns
    -------
    profiles, report
        As for `lastfm_360k_profiles`.
    """
    return read_table(path, _1K, errors, categories=("gender", "country"))
