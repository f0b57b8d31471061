"""Readers for the profiles of the users of Last.fm 360K and 1K: gender, age, country and day of registration."""

import os
import re
from datetime import date

import pandas as pd
import pyarrow as pa

from alscore.datasets._delimited import OPTIONAL_TEXT, Field, FileFormat, Lines, like, read_dataframe
from alscore.datasets.lastfm import SHA1
from alscore.datasets.lastfm_1k import USER
from alscore.interactions import Report

_MONTHS = "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"


def _dates(texts: pa.Array) -> pa.Array:
    return pa.array(map(_date, texts.to_pylist()), pa.date32()).cast(pa.timestamp("s"))


def _date(text: str) -> date | None:
    """Parse a date such as Feb 1, 2007. (strptime would expect month names in the language of the locale.)"""
    match = re.fullmatch("([A-Z][a-z]{2}) ([0-9]{1,2}), ([0-9]{4})", text)
    try:
        return match and date(int(match[3]), _MONTHS.index(match[1]) + 1, int(match[2]))
    except ValueError:
        return None


FORMAT_360K = FileFormat(
    "usersha1-profile.tsv",
    {
        "user": SHA1,
        "gender": Field("is not m or f", like("^[mf]$"), optional=True),
        "age": Field("is not a whole number", like("^-?[0-9]{1,9}$", "int32"), optional=True),
        "country": OPTIONAL_TEXT,
        "registered": Field("is not a date such as Feb 1, 2007", _dates, optional=True),
    },
)
FORMAT_1K = FileFormat(
    "userid-profile.tsv",
    {**FORMAT_360K.fields, "user": USER},
    header=b"#id\tgender\tage\tcountry\tregistered",
)


def lastfm_360k_profiles(path: str | os.PathLike[str], errors: str = "report") -> tuple[pd.DataFrame, Report]:
    """Read the profiles of the users of Last.fm 360K.

    Parameters
    ----------
    path : str or path
        The original archive (``.tar.gz``, read in place), the profile file (plain or gzipped), or a folder that
        holds it at any depth.
    errors : {"report", "raise"}
        Leave out the lines that are not valid profiles and list them in the report, or raise a ValueError.

    Returns
    -------
    profiles : pandas.DataFrame
        A row for each valid line, in the order of the file: `user` (text), `gender` ("f" or "m", categories), `age`
        (Int32; as users gave it, such as -1337), `country` (categories) and `registered` (datetime64[s], a day). An
        empty field is a missing value.
    report : Report
        `report.rejected` lists each rejected line with its number and the reason.

    Raises
    ------
    FileNotFoundError, ValueError
        Same errors as `lastfm_360k`.
    """
    return read_profiles(Lines(path, FORMAT_360K, errors))


def lastfm_1k_profiles(path: str | os.PathLike[str], errors: str = "report") -> tuple[pd.DataFrame, Report]:
    """Read the profiles of the users of Last.fm 1K.

    The first line of the file is a header. The report does not count it as read.

    Parameters
    ----------
    path, errors
        Same as for `lastfm_360k_profiles`.

    Returns
    -------
    profiles, report
        Same as for `lastfm_360k_profiles`.

    Raises
    ------
    FileNotFoundError, ValueError
        Same errors as `lastfm_360k`. The file must also begin with its header.
    """
    return read_profiles(Lines(path, FORMAT_1K, errors))


def read_profiles(lines: Lines) -> tuple[pd.DataFrame, Report]:
    """Return the table of the profiles in `lines`, and the report."""
    return read_dataframe(lines, categories=("gender", "country"))
