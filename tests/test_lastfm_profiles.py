"""Readers for the profiles of Last.fm users. test_delimited.py tests what all readers share."""

import gzip
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from alscore.datasets.lastfm_profiles import lastfm_1k_profiles, lastfm_360k_profiles

FILES = {
    lastfm_360k_profiles: ("lastfm-360k-first10000/usersha1-profile.first1000.tsv.gz", 0),
    lastfm_1k_profiles: ("lastfm-1k-first5000/userid-profile.tsv.gz", 1),
}
MONTHS = "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"


@pytest.mark.parametrize(("reader", "count"), [(lastfm_360k_profiles, 1000), (lastfm_1k_profiles, 992)])
def test_real_profiles(shared_data, reader, count):
    file, header = FILES[reader]
    profiles, report = reader(shared_data / file)
    lines = gzip.decompress((shared_data / file).read_bytes()).decode().removesuffix("\n").split("\n")[header:]
    assert len(lines) == count == len(profiles)
    assert (report.read, report.kept, report.merged, len(report.rejected)) == (count, count, 0, 0)
    for (_, row), line in zip(profiles.iterrows(), lines, strict=True):
        user, gender, age, country, day = line.split("\t")
        expected = (user, gender, age and int(age), country, day and datetime.strptime(day, "%b %d, %Y"))
        assert tuple("" if pd.isna(value) else value for value in row) == expected
    assert list(profiles.columns) == ["user", "gender", "age", "country", "registered"]
    assert set(profiles["gender"].cat.categories) == {"f", "m"}
    assert profiles["age"].dtype == "Int32"
    assert profiles["registered"].dtype == np.dtype("M8[s]")


def test_every_month_in_english(tmp_path):
    path = tmp_path / "usersha1-profile.tsv"
    path.write_text("".join(f"{at:040d}\t\t\t\t{month} {at + 1}, 2007\n" for at, month in enumerate(MONTHS)))
    profiles, report = lastfm_360k_profiles(path, errors="raise")
    assert profiles["registered"].tolist() == [datetime(2007, at + 1, at + 1) for at in range(12)]
    assert report.kept == 12


def test_ages_stay_as_users_gave_them(tmp_path):
    path = tmp_path / "usersha1-profile.tsv"
    ages = "-1337", "1002", "", "0"
    path.write_text("".join(f"{at:040d}\t\t{age}\t\t\n" for at, age in enumerate(ages)))
    profiles, _ = lastfm_360k_profiles(path)
    assert profiles["age"].tolist() == [-1337, 1002, pd.NA, 0]
