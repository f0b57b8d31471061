"""The reader for HetRec 2011: the real set and artist names. test_delimited.py tests what all readers share."""

import gzip
import zipfile

import numpy as np
import pandas as pd
import pytest

from alscore.datasets.hetrec import hetrec_lastfm_2k, hetrec_lastfm_2k_table

PLAYS = b"userID\tartistID\tweight\r\n"
ARTISTS = b"id\tname\turl\tpictureURL\n"


@pytest.fixture
def folder(shared_data):
    return shared_data / "hetrec2011-lastfm-2k"


def real_lines(folder, name, encoding="utf-8"):
    """The real lines, without the header, as lists of text."""
    lines = gzip.decompress((folder / f"{name}.gz").read_bytes()).decode(encoding).replace("\r\n", "\n").split("\n")
    assert lines.pop() == ""
    return [line.split("\t") for line in lines[1:]]


@pytest.fixture
def write(tmp_path):
    """Write plays and artists, and return their folder."""

    def write(plays, artists):
        (tmp_path / "user_artists.dat").write_bytes(PLAYS + plays)
        (tmp_path / "artists.dat").write_bytes(ARTISTS + artists)
        return tmp_path

    return write


@pytest.mark.parametrize("items", ["name", "id"])
def test_real_plays(folder, items):
    interactions = hetrec_lastfm_2k(folder, items=items)
    names = {number: name if items == "name" else int(number) for number, name, *_ in real_lines(folder, "artists.dat")}
    plays = {(int(user), names[artist]): float(n) for user, artist, n in real_lines(folder, "user_artists.dat")}
    table = interactions.to_pandas()
    assert dict(zip(zip(table["user"], table["item"], strict=True), table["value"], strict=True)) == plays
    assert interactions.shape == (1892, 17_632)
    assert interactions.nnz == 92_834
    assert (table["value"].min(), table["value"].max()) == (1, 352_698)
    assert interactions.timestamps is None
    report = interactions.report
    assert (report.read, report.kept, report.merged, len(report.rejected)) == (92_834, 92_834, 0, 0)


def test_real_tables(folder):
    artists, report = hetrec_lastfm_2k_table(folder, "artists")
    assert report.kept == len(artists) == 17_632
    assert artists.fillna("").astype(str).values.tolist() == real_lines(folder, "artists.dat")
    assert artists["picture_url"].isna().sum() == 444
    assert artists["id"].dtype == np.int64

    tags, report = hetrec_lastfm_2k_table(folder, "tags")
    assert report.kept == len(tags) == 11_946
    assert tags.astype(str).values.tolist() == real_lines(folder, "tags.dat", "latin-1")
    named = tags.set_index("id")["name"]
    assert [named[number] for number in (1, 2863, 4571, 7982)] == ["metal", "tropicália", "rock français", "fußball"]

    friends, report = hetrec_lastfm_2k_table(folder, "friends")
    assert report.kept == len(friends) == 25_434
    pairs = set(friends.itertuples(index=False, name=None))
    assert pairs == {(int(user), int(friend)) for user, friend in real_lines(folder, "user_friends.dat")}
    assert pairs == {(friend, user) for user, friend in pairs}


def test_the_real_set_in_a_zip_as_published(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "hetrec2011-lastfm-2k.zip", "w") as archive:
        for name in ("artists.dat", "tags.dat", "user_artists.dat", "user_friends.dat"):
            archive.writestr(name, gzip.decompress((folder / f"{name}.gz").read_bytes()))
    unpacked, zipped = (hetrec_lastfm_2k(path) for path in (folder, tmp_path / "hetrec2011-lastfm-2k.zip"))
    assert zipped.items.equals(unpacked.items)
    assert (zipped.matrix != unpacked.matrix).nnz == 0


def test_tag_assignments(tmp_path):
    path = tmp_path / "user_taggedartists-timestamps.dat"
    path.write_bytes(b"userID\tartistID\ttagID\ttimestamp\r\n2\t52\t13\t1238536800000\r\n2\t52\t13\t-428720400000\r\n")
    table, _ = hetrec_lastfm_2k_table(path, "tag_assignments")
    assert table["timestamp"].tolist() == [pd.Timestamp("2009-03-31T22:00Z"), pd.Timestamp("1956-05-31T23:00Z")]
    assert table["timestamp"].dtype == pd.DatetimeTZDtype("ms", "UTC")


def test_artists_with_the_same_name_get_their_ids(write):
    folder = write(b"1\t7\t10\r\n1\t8\t20\r\n1\t9\t30\r\n", b"7\tNirvana\t\t\n8\tNirvana\t\t\n9\tNirvana (UK)\t\t\n")
    interactions = hetrec_lastfm_2k(folder)
    assert interactions.items.tolist() == ["Nirvana (UK)", "Nirvana [7]", "Nirvana [8]"]
    assert interactions.matrix.toarray().tolist() == [[30, 10, 20]]


def test_plays_without_an_artist_are_reported(write):
    folder = write(b"1\t7\t10\n1\t8\t20\n2\t07\t1\n2\tx\t1\n2\t9\t1\n", b"7\tone\t\t\n8\t\t\t\n9\tnine\t\n")
    interactions = hetrec_lastfm_2k(folder)
    assert interactions.items.tolist() == ["one"]
    report = interactions.report
    unnamed = "item is not named in artists.dat"
    assert report.rejected.values.tolist() == [
        [3, "artists.dat: name is empty"],
        [4, "artists.dat: not 4 fields"],
        *([number, unnamed] for number in (3, 4, 5, 6)),
    ]
    assert report.rejected["number"].dtype == np.int64
    assert (report.read, report.kept, report.merged) == (2 + 5, 1, 0)
    assert len(hetrec_lastfm_2k(folder, items="id").report.rejected) == 2
    with pytest.raises(ValueError, match=r"\(artists\.dat\), line 3: name is empty"):
        hetrec_lastfm_2k(folder, errors="raise")


def test_ambiguous_ids_and_bad_arguments_are_refused(write):
    folder = write(b"1\t7\t10\n", b"7\tone\t\t\n7\ttwo\t\t\n")
    with pytest.raises(ValueError, match=r"artists\.dat\) names id 7 more than once; remove all but one"):
        hetrec_lastfm_2k(folder)
    assert hetrec_lastfm_2k(folder, items="id").items.tolist() == [7]
    with pytest.raises(ValueError, match="items must be 'name' or 'id', not 'mbid'"):
        hetrec_lastfm_2k(folder, items="mbid")
    with pytest.raises(ValueError, match=r"table must be 'artists' or 'tags' or .*, not 'plays'"):
        hetrec_lastfm_2k_table(folder, "plays")
    alone = folder / "user_artists.dat"
    with pytest.raises(
        ValueError, match=r"user_artists\.dat has no names: .*folder that also holds artists\.dat, or items='id'"
    ):
        hetrec_lastfm_2k(alone)
    assert hetrec_lastfm_2k(alone, items="id").items.tolist() == [7]
