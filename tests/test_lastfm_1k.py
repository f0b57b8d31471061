"""The reader for Last.fm 1K: real events and their counts. test_delimited.py tests what all readers share."""

import gzip
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from alscore.datasets._delimited import Lines
from alscore.datasets.lastfm_1k import (
    EVENTS_FORMAT,
    PLAY_COUNT_FORMATS,
    lastfm_1k,
    lastfm_1k_events,
    read_events,
    read_play_counts,
)

FILE = "userid-timestamp-artid-artname-traid-traname.tsv"


@pytest.fixture
def folder(shared_data):
    return shared_data / "lastfm-1k-first5000"


@pytest.fixture
def events(folder):
    """The real lines as tuples of text."""
    lines = gzip.decompress((folder / f"{FILE}.gz").read_bytes()).decode().removesuffix("\n").split("\n")
    return [line.split("\t") for line in lines]


@pytest.fixture
def read(tmp_path):
    """Write events and read them."""

    def write_and_read(*lines, reader=lastfm_1k, **options):
        (tmp_path / FILE).write_text("".join("\t".join(line) + "\n" for line in lines), newline="")
        return reader(tmp_path / FILE, **options)

    return write_and_read


def seconds(timestamp):
    return int(datetime.fromisoformat(timestamp).timestamp())


@pytest.mark.parametrize("block_bytes", [None, 1 << 20, 2000])
@pytest.mark.parametrize("items", ["name", "mbid"])
def test_real_events_counted(folder, events, items, block_bytes):
    if block_bytes is None:
        interactions = lastfm_1k(folder, items=items)
    else:
        interactions = read_play_counts(Lines(folder, PLAY_COUNT_FORMATS[items], "report", block_bytes=block_bytes))
    plays, last = Counter(), {}
    for user, time, mbid, name, _, _ in events:
        pair = user, (name or mbid) if items == "name" else (mbid or name)
        plays[pair] += 1
        last[pair] = max(last.get(pair, 0), seconds(time))
    table = interactions.to_pandas()
    pairs = list(zip(table["user"], table["item"], strict=True))
    assert dict(zip(pairs, table["value"], strict=True)) == plays
    assert dict(zip(pairs, interactions.timestamps, strict=True)) == last
    assert interactions.timestamps.dtype == np.int64
    assert table.groupby("user")["value"].sum().to_dict() == {"user_000001": 4997, "user_000002": 3}
    assert interactions.shape == (2, len({item for _, item in plays}))
    if items == "name":
        assert interactions.n_items == 235
    report = interactions.report
    assert (report.read, report.kept, report.merged, len(report.rejected)) == (5000, len(plays), 5000 - len(plays), 0)


@pytest.mark.parametrize("block_bytes", [None, 1 << 20, 2000])
def test_real_events_kept(folder, events, block_bytes):
    if block_bytes is None:
        table, report = lastfm_1k_events(folder)
    else:
        table, report = read_events(Lines(folder, EVENTS_FORMAT, "report", block_bytes=block_bytes))
    expected = [
        (user, datetime.fromisoformat(time).astimezone(UTC), *(text or None for text in texts))
        for user, time, *texts in events
    ]
    assert table.column_names == ["user", "timestamp", "artist_id", "artist", "track_id", "track"]
    assert [tuple(row.values()) for row in table.to_pylist()] == expected
    assert (table["artist_id"].null_count, table["track_id"].null_count) == (353, 1396)
    assert (report.read, report.kept, report.merged, len(report.rejected)) == (5000, 5000, 0, 0)
    frame = table.to_pandas()
    assert isinstance(frame["artist"].dtype, pd.CategoricalDtype)
    assert isinstance(frame["timestamp"].dtype, pd.DatetimeTZDtype)
    assert frame["artist"].nunique() == 235


def test_mbid_or_name_identifies_the_artist(read):
    lines = [
        ("user_000001", f"2009-01-01T00:00:0{at}Z", mbid, name, "", "")
        for at, (mbid, name) in enumerate(
            [("m1", "one"), ("m1", "uno"), ("", "one"), ("m2", ""), ("m3", "one"), ("", "m2")]
        )
    ]
    by_name, by_mbid = read(*lines), read(*lines, items="mbid")
    assert dict(zip(by_name.items, by_name.matrix.data, strict=True)) == {"m2": 2, "one": 3, "uno": 1}
    assert dict(zip(by_mbid.items, by_mbid.matrix.data, strict=True)) == {"m1": 2, "m2": 2, "m3": 1, "one": 1}
    start = seconds("2009-01-01T00:00:00Z")
    assert list(by_name.timestamps - start) == [5, 4, 1]
    assert list(by_mbid.timestamps - start) == [1, 5, 4, 2]


def test_an_event_without_an_artist_is_reported(read):
    lines = [("user_000001", "2009-01-01T00:00:00Z", *texts) for texts in (("", "a", "", "b"), ("", "", "m", "b"))]
    for reader in (lastfm_1k, lastfm_1k_events):
        result = read(*lines, reader=reader)
        report = result.report if reader is lastfm_1k else result[1]
        assert (report.read, report.kept) == (2, 1)
        assert report.rejected.values.tolist() == [[2, "neither artist nor artist_id"]]


def test_the_timestamp_is_that_of_the_last_play_in_any_order(read):
    times = ["2009-05-04T23:08:57Z", "2038-01-19T03:14:08Z", "1969-12-31T23:59:59Z"]
    interactions = read(*(("user_000001", time, "", "a", "", "") for time in times))
    assert interactions.matrix.data.tolist() == [3]
    assert interactions.timestamps.tolist() == [2**31]


def test_items_is_verified(tmp_path):
    with pytest.raises(ValueError, match="items must be 'name' or 'mbid', not 'track'"):
        lastfm_1k(tmp_path, items="track")
