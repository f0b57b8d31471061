"""The reader for MovieLens: real ratings, titles, both forms. test_delimited.py tests what all readers share."""

import csv
import gzip
import zipfile

import pandas as pd
import pytest

from alscore import Interactions
from alscore.datasets.movielens import movielens

RATINGS = "userId,movieId,rating,timestamp\n"
MOVIES = "movieId,title,genres\n"


@pytest.fixture
def folder(shared_data):
    return shared_data / "movielens-latest-small-2016"


@pytest.fixture
def write(tmp_path):
    """Write files, and return their folder."""

    def write(**files):
        for name, content in files.items():
            path = tmp_path / name.replace("_", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write


@pytest.mark.parametrize("items", ["title", "id"])
def test_real_ratings(folder, items):
    interactions = movielens(folder, items=items)
    ratings, movies = (pd.read_csv(folder / f"{name}.csv.gz") for name in ("ratings", "movies"))
    assert interactions.shape == (671, 9066)
    assert interactions.nnz == len(ratings) == 100_004
    report = interactions.report
    assert (report.read, report.kept, report.merged, len(report.rejected)) == (100_004, 100_004, 0, 0)
    label = ratings["movieId"]
    if items == "title":
        shared = movies["title"].duplicated(keep=False)
        titles = movies["title"].where(~shared, movies["title"] + " [" + movies["movieId"].astype(str) + "]")
        label = label.map(dict(zip(movies["movieId"], titles, strict=True)))
        assert shared.sum() == 4
        assert {"Hamlet (2000) [3598]", "11'09\"01 - September 11 (2002)"} <= set(interactions.items)
        assert '"Great Performances" Cats (1998)' in interactions.items
    expected = ratings.assign(label=label).sort_values(["userId", "label"])
    table = interactions.to_pandas()
    assert table["user"].tolist() == expected["userId"].tolist()
    assert table["item"].tolist() == expected["label"].tolist()
    assert table["value"].tolist() == expected["rating"].tolist()
    assert interactions.timestamps.tolist() == expected["timestamp"].tolist()


def test_the_example_of_the_docstring(write):
    ratings = write(ratings_csv=RATINGS + "1,31,2.5,1\n1,32,4.0,2\n2,31,5.0,3\n")
    frame = movielens(ratings, items="id").to_pandas()
    seen = Interactions.from_pandas(frame, "user", "item", timestamp="timestamp")
    liked = Interactions.from_pandas(frame[frame["value"] >= 4], "user", "item", timestamp="timestamp")
    assert seen.to_pandas().values.tolist() == [[1, 31, 1, 1], [1, 32, 1, 2], [2, 31, 1, 3]]
    assert liked.to_pandas().values.tolist() == [[1, 32, 1, 2], [2, 31, 1, 3]]


def test_the_latest_rating_counts(write):
    folder = write(ratings_csv=RATINGS + "1,31,5.0,100\n1,31,4.0,300\n1,31,1.0,200\n")
    interactions = movielens(folder, items="id")
    assert (interactions.matrix.data.tolist(), interactions.timestamps.tolist()) == ([4], [300])
    assert (interactions.report.kept, interactions.report.merged) == (1, 2)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_the_form_of_1m_and_10m(write, encoding):
    movies = "1::Toy Story (1995)::Animation|Children's\n2::Misérables, Les: \"1995\"::Drama\n3::'::Drama\n"
    folder = write(movies_dat=movies.encode(encoding), ratings_dat="1::1::5::978300760\n1::2::3.5::978302109\n")
    interactions = movielens(folder)
    assert interactions.items.tolist() == ['Misérables, Les: "1995"', "Toy Story (1995)"]
    assert interactions.matrix.toarray().tolist() == [[3.5, 5]]
    assert interactions.timestamps.tolist() == [978302109, 978300760]


@pytest.mark.parametrize("form", ["csv", "dat"])
def test_the_archive_is_read_in_place(tmp_path, form):
    files = {
        "csv": {"ratings.csv": RATINGS + "1,2,3.5,4\n", "movies.csv": MOVIES + '2,"A, The ""B""",Drama\n'},
        "dat": {"ratings.dat": "1::2::3.5::4\n", "movies.dat": '2::A, The "B"::Drama\n'},
    }[form]
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        archive.writestr("ml/README.txt", "about")
        for name, content in files.items():
            archive.writestr(f"ml/{name}", content)
    interactions = movielens(tmp_path / "ml.zip")
    assert interactions.items.tolist() == ['A, The "B"']
    assert interactions.matrix.toarray().tolist() == [[3.5]]


QUOTES, WIDTH = "unpaired or misplaced quotes", "not 3 fields"


@pytest.mark.parametrize(
    ("line", "reasons"),
    [
        ('3,"a,Drama', [QUOTES]),
        ('3,"a"b,Drama', [QUOTES]),
        ('3,"a""",x"b,"', [QUOTES]),
        ('3,"a\rb,Drama', [QUOTES]),
        ('3,"a\nb",Drama', [QUOTES, WIDTH]),
        ("3,a,b,Drama", [WIDTH]),
        ('3,"a"', [WIDTH]),
        ("3,,Drama", ["name is empty"]),
        ('3,"",Drama', ["name is empty"]),
        ("x,a,Drama", ["id is not a positive integer"]),
    ],
)
def test_ratings_without_a_title_are_reported(write, line, reasons):
    folder = write(
        movies_csv=f"{MOVIES}2,b,Drama\n{line}\n4,d,Drama\n", ratings_csv=RATINGS + "1,2,1,1\n1,3,1,1\n1,4,1,1\n"
    )
    interactions = movielens(folder)
    assert interactions.items.tolist() == ["b", "d"]
    report = interactions.report
    assert report.rejected.values.tolist() == [
        *([3 + at, f"movies.csv: {reason}"] for at, reason in enumerate(reasons)),
        [3, "item is not named in movies.csv"],
    ]
    assert (report.read, report.kept, report.merged) == (3 + len(reasons), 2, 0)
    with pytest.raises(ValueError, match=rf"\(movies\.csv\), line 3: {reasons[0]}"):
        movielens(folder, errors="raise")


def test_titles_in_quotes_stay_unchanged(write, tmp_path):
    titles = ["a, b", '"', '""', ',"', "a\rb", 'a"b', '"a" b', "'", "é, ü", ",", '",', "x" * 200_000, '"' * 100_000]
    with open(tmp_path / "movies.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(MOVIES.strip().split(","))
        writer.writerows([number, title, "Drama, other"] for number, title in enumerate(titles, 1))
        file.write('90,not"quoted,Drama\n91,a\rb 2,"a, b"\n')
    titles += ['not"quoted', "a\rb 2"]
    numbers = [*range(1, len(titles) - 1), 90, 91]
    folder = write(ratings_csv=RATINGS + "".join(f"1,{number},3,{number}\n" for number in numbers))
    interactions = movielens(folder, errors="raise")
    assert dict(zip(interactions.items, interactions.timestamps, strict=True)) == dict(
        zip(titles, numbers, strict=True)
    )


def test_films_with_the_same_title_get_their_ids(write):
    movies = ["1,Hamlet", "2,Hamlet", "3,Hamlet [1]", "4,Hamlet [1] [3]", "5,Ran"]
    folder = write(
        movies_csv=MOVIES + "".join(f"{movie},Drama\n" for movie in movies),
        ratings_csv=RATINGS + "".join(f"1,{number},{number},1\n" for number in range(1, 6)),
    )
    interactions = movielens(folder)
    assert dict(zip(interactions.items, interactions.matrix.data, strict=True)) == {
        "Hamlet [1] [1]": 1,
        "Hamlet [2]": 2,
        "Hamlet [1] [3] [3]": 3,
        "Hamlet [1] [3] [4]": 4,
        "Ran": 5,
    }


def test_ratings_alone(write):
    raw = (RATINGS + "1,2,3,4\n").encode()
    folder = write(ratings_csv=raw, ratings_csv_gz=gzip.compress(raw))
    for path in (folder / "ratings.csv", folder / "ratings.csv.gz"):
        with pytest.raises(
            ValueError, match=rf"{path} has no names: .*folder that also holds movies\.csv, or items='id'"
        ):
            movielens(path)
        assert movielens(path, items="id").items.tolist() == [2]
    with pytest.raises(FileNotFoundError):
        movielens(folder / "other" / "ratings.csv")


def test_the_whole_file_name_tells_the_form(tmp_path):
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        archive.writestr("ml/old_ratings.dat", "1::2::3::4\n")
        archive.writestr("ml/ratings.csv", RATINGS + "1,2,3,4\n")
    assert movielens(tmp_path / "ml.zip", items="id").items.tolist() == [2]


@pytest.mark.parametrize("items", ["title", "id"])
def test_a_damaged_archive_is_named(tmp_path, items):
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        archive.writestr("ratings.csv", RATINGS)
    raw = (tmp_path / "ml.zip").read_bytes()
    (tmp_path / "ml.zip").write_bytes(raw.replace(b"PK\x01\x02", b"PK??"))
    with pytest.raises(ValueError, match=r"ml\.zip .*is damaged after line 0"):
        movielens(tmp_path / "ml.zip", items=items)


def test_ambiguous_files_and_bad_arguments_are_refused(write):
    folder = write(ratings_csv=RATINGS + "1,2,3,4\n", movies_csv=MOVIES + "2,a,Drama\n2,b,Drama\n")
    with pytest.raises(ValueError, match=r"movies\.csv\) names id 2 more than once; remove all but one"):
        movielens(folder)
    with pytest.raises(ValueError, match="items must be 'title' or 'id', not 'name'"):
        movielens(folder, items="name")
    write(ratings_dat="1::2::3::4\n")
    with pytest.raises(ValueError, match=r"holds both ratings\.csv and ratings\.dat; give the path of one"):
        movielens(folder)
