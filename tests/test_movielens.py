"""The MovieLens reader: real ratings, titles, both forms; what readers have in common is in test_delimited.py."""

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
    """Write files; gives their folder."""

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


def test_implicit_feedback_as_the_documentation_makes_it(write):
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


@pytest.mark.parametrize(
    "line",
    [
        '3,"a,Drama',
        '3,"a"b,Drama',
        "3,a,b,Drama",
        '3,"a\rb,Drama',
        "3,a\rb,Drama",
        '3,"a\nb",Drama',
        "3,,Drama",
        "x,a,Drama",
    ],
)
def test_ratings_without_a_title_are_reported(write, line):
    folder = write(
        movies_csv=f"{MOVIES}2,b,Drama\n{line}\n4,d,Drama\n", ratings_csv=RATINGS + "1,2,1,1\n1,3,1,1\n1,4,1,1\n"
    )
    interactions = movielens(folder)
    assert interactions.items.tolist() == ["b", "d"]
    assert interactions.report.rejected.values.tolist() == [[3, "item is not a film of movies.csv"]]
    with pytest.raises(ValueError, match=r"\(movies\.csv\), line 3: "):
        movielens(folder, errors="raise")


def test_what_cannot_be_answered_is_refused(write):
    folder = write(ratings_csv=RATINGS + "1,2,3,4\n", movies_csv=MOVIES + "2,a,Drama\n2,b,Drama\n")
    with pytest.raises(ValueError, match=r"movies\.csv\) names 2 more than once; remove one"):
        movielens(folder)
    with pytest.raises(ValueError, match="items must be 'title' or 'id', not 'name'"):
        movielens(folder, items="name")
    write(ratings_dat="1::2::3::4\n")
    with pytest.raises(ValueError, match=r"holds both ratings\.csv and ratings\.dat; give the path of one"):
        movielens(folder)
