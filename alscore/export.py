"""Factors for other programs: tables and files with labels, and indexes for approximate search."""

import dataclasses
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from alscore import retrieval
from alscore._data.label_columns import labels_to_arrow
from alscore._support.arrays import Floats, Int64s
from alscore._support.checks import require_integer
from alscore._support.files import atomic_writer
from alscore._support.threads import resolve_threads
from alscore.recommender import Recommender
from alscore.retrieval.factors import NotFittedError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from alscore.als import AlternatingLeastSquares

    Model = Recommender | AlternatingLeastSquares
    StrPath = str | os.PathLike[str]


def to_arrow(model: "Model", side: str) -> "pa.Table":
    """Return the factors of one side, with their labels, as an Arrow table.

    Parameters
    ----------
    model : Recommender or AlternatingLeastSquares
        Fitted. For the latter the labels are the codes, 0, 1, 2, …
    side : {"user", "item"}

    Returns
    -------
    pyarrow.Table
        A row for each user or item, in the order of the codes: the label, in a column named as the side, and
        `factors`, FixedSizeList(k) of the model's dtype. The factors are the model's own memory, not a copy.

    Raises
    ------
    NotFittedError
        There are no factors yet.
    ValueError
        Another `side`, or not as many labels as factors.
    TypeError
        Labels that Arrow has no type for.

    Examples
    --------
    >>> from alscore import AlternatingLeastSquares, Recommender, datasets, export
    >>> recommender = Recommender(AlternatingLeastSquares(factors=16))
    >>> table = export.to_arrow(recommender.fit(datasets.synthetic(500, 300), show_progress=False), "item")
    >>> table.num_rows, str(table.schema.field("factors").type)
    (300, 'fixed_size_list<item: float>[16]')
    """
    import pyarrow as pa

    labels, factors = _labelled(model, side)
    column = labels_to_arrow(labels, f"{side}s")["label"]
    return pa.table({side: column, "factors": pa.FixedSizeListArray.from_arrays(factors.ravel(), factors.shape[1])})


def to_parquet(model: "Model", side: str, path: "StrPath") -> None:
    """Write the table of `to_arrow` to a Parquet file.

    Parameters
    ----------
    model, side
        As for `to_arrow`, and so are the errors raised.
    path : str or path
        Replaced once the new file is whole.
    """
    from pyarrow import parquet

    table = to_arrow(model, side)
    with atomic_writer(path) as file:
        parquet.write_table(table, file, use_dictionary=False)  # in neither column do values repeat


def to_npz(model: "Model", path: "StrPath") -> None:
    """Write the factors and the labels of both sides to one file that ``numpy.load(path)`` reads, without pickle.

    The arrays are `user_factors` (n_users, k) and `item_factors` (n_items, k) as they are, `users` and `items`.
    Labels that are numbers or dates stand there as such. Text would take numpy, in every row, four bytes for each
    character of the longest label: dozens of times the text itself for names of artists. So `items` (and likewise
    `users`) is then all of it end to end, as UTF-8 in uint8, and `items_ends`, int64 (n_items,), says where each label
    ends::

        with np.load(path) as file:
            ends, text = file["items_ends"], file["items"].tobytes()
        items = [text[start:end].decode() for start, end in itertools.pairwise([0, *ends])]

    Parameters
    ----------
    model : Recommender or AlternatingLeastSquares
        As for `to_arrow`.
    path : str or path
        Replaced once the new file is whole; numpy's own ".npz" is not added.

    Raises
    ------
    NotFittedError, ValueError
        As for `to_arrow`.
    TypeError
        Labels that are of no numpy type, such as dates with a time zone.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for side in ("user", "item"):
        labels, arrays[f"{side}_factors"] = _labelled(model, side)
        arrays |= _labels_to_numpy(labels, f"{side}s")
    with atomic_writer(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # mypy takes them for allow_pickle too


@dataclasses.dataclass(frozen=True)
class AnnIndex:
    """What one needs to know about an index that `export_ann` has written.

    Attributes
    ----------
    path : pathlib.Path
    library : str
        "hnswlib", "faiss" or "usearch", which opens it: see `export_ann`.
    metric : str
        "ip" or "l2".
    n_items : int
    dimension : int
        Of its vectors: k, or with the extra dimension k + 1.
    max_norm : float
        M, the length of the longest item factor.
    """

    path: Path
    library: str
    metric: str
    n_items: int
    dimension: int
    max_norm: float

    def queries(self, user_factors: Floats) -> NDArray[np.float32]:
        """Return what to ask the index for: each user's factors, and in the extra dimension a 0.

        Parameters
        ----------
        user_factors : float array, shape (n, k)

        Returns
        -------
        float32 array, shape (n, dimension)
        """
        queries = np.zeros((len(user_factors), self.dimension), np.float32)
        queries[:, : user_factors.shape[1]] = user_factors
        return queries

    def search(self, user_factors: Floats, n: int = 10, ef: int = 100) -> Int64s:
        """Open the index in its library, and find the n items that each user is likeliest to want.

        To serve from an index, open it once with the library itself, as `export_ann` shows.

        Parameters
        ----------
        user_factors : float array, shape (n_users, k)
        n : int
            From 1 to `n_items`.
        ef : int
            Candidates that the search keeps, raised to n where it is less: more of them find more, and take longer.

        Returns
        -------
        int64 array, shape (n_users, n)
            Item codes, best first. -1 where the search reaches fewer than n items.

        Raises
        ------
        ValueError
            Another `n`.
        RuntimeError
            The search reaches fewer than n items, in hnswlib: raise `ef`, or make the index with a larger
            `connectivity` or `ef_construction`.
        """
        require_integer(n, "n", 1)
        if n > self.n_items:
            raise ValueError(f"n must be at most {self.n_items}, the number of items in the index, not {n}")
        search = _LIBRARIES[self.library][1]
        ids: Int64s = search(self, self.queries(user_factors), n, max(n, ef)).astype(np.int64)
        return ids

    def recall(self, model: "Model", n: int = 10, ef: int = 100, n_users: int = 1000) -> float:
        """Measure how many of the exact n best items the index finds.

        Parameters
        ----------
        model : Recommender or AlternatingLeastSquares
            The index was made from it.
        n, ef
            As for `search`.
        n_users : int
            Users to ask for, at most, evenly spaced among those whose factors are not 0: to the others all items are
            equal.

        Returns
        -------
        float
            From 0 to 1, the mean of the users.

        Raises
        ------
        ValueError
            There is no such user, or as by `search`.
        RuntimeError
            As by `search`.
        """
        require_integer(n_users, "n_users", 1)
        users, items = (_labelled(model, side)[1] for side in ("user", "item"))
        users = users[users.any(axis=1)]
        if not len(users):
            raise ValueError("the model has no user to ask for: the factors of all are 0")
        users = users[np.linspace(0, len(users) - 1, min(n_users, len(users))).astype(np.int64)]
        found = self.search(users, n, ef)
        exact, _ = retrieval.top_n(users, items, n)
        return float(np.mean(exact[:, :, None] == found[:, None, :]) * n)


def export_ann(
    model: "Model",
    library: str,
    path: "StrPath",
    *,
    metric: str = "ip",
    connectivity: int = 16,
    ef_construction: int = 200,
    num_threads: int = 1,
) -> AnnIndex:
    """Write an HNSW graph of the item factors for a library of approximate nearest neighbours.

    It answers which items have the largest inner product with a user's factors. The ids in it are item codes:
    ``recommender.interactions.items[ids]`` are the labels. In another process, with `dimension` from what is returned
    and `queries`, float32, from its method of this name::

        index = hnswlib.Index(space="ip", dim=dimension)
        index.load_index(path)
        index.set_ef(100)
        ids, distances = index.knn_query(queries, k=10)         # distance: 1 - score

        index = faiss.read_index(path)                          # efSearch is 100
        scores, ids = index.search(queries, 10)

        index = usearch.index.Index.restore(path)
        index.expansion_search = 100
        ids = index.search(queries, 10).keys                    # distance: 1 - score

    HNSW is proven for distances alone. Bachrach et al. (2014) make inner products such: each item gets one more
    number, ``sqrt(M**2 - |y|**2)`` with M the largest norm, each query a 0, and then the nearest item by L2 or cosine
    is the one with the largest inner product. But it moves nearly all items of a trained model to one spot, and the
    search gets lost there. Recall@10 of all users of ``datasets.synthetic(20_000, 15_000, seed=0)``, with 64 factors
    and ef = 100:

    ===================================  =======  =====  =======
    metric                               hnswlib  faiss  usearch
    ===================================  =======  =====  =======
    "ip", the library's inner product    0.993    0.994  0.993
    "l2", with the extra dimension       0.46     0.53   0.45
    ===================================  =======  =====  =======

    It was measured by the following, which works for a model of yours too::

        model = AlternatingLeastSquares(factors=64, random_state=0).fit(datasets.synthetic(20_000, 15_000, seed=0))
        index = export_ann(model, "faiss", "index", metric="l2")
        index.recall(model, n_users=20_000)

    Cosine with the extra dimension finds what "l2" does. Morozov and Babenko (2018) explain why the graph of inner
    products is the better one.

    Parameters
    ----------
    model : Recommender or AlternatingLeastSquares
        Fitted.
    library : {"hnswlib", "faiss", "usearch"}
        ``pip install hnswlib``, ``faiss-cpu`` or ``usearch`` installs one, ``pip install alscore[ann]`` all three.
        hnswlib has no wheels: pip compiles it, for which it needs a C++ compiler.
    path : str or path
        The index, in the library's own format. Replaced once the new one is whole.
    metric : {"ip", "l2"}
        See above.
    connectivity : int
        Links of each item (HNSW's M), at least 2; twice as many in the lowest layer. More of them find more, and take
        more memory.
    ef_construction : int
        Candidates for these links, at least 1.
    num_threads : int
        0 takes all CPUs of this process. With one the file always has the same bytes, with more it varies.

    Returns
    -------
    AnnIndex

    Raises
    ------
    ImportError
        The library is not installed.
    NotFittedError
        There are no factors yet.
    ValueError
        An argument is not as above, or the model has no items.
    OSError, RuntimeError
        The index cannot be written; faiss and usearch raise the latter.
    """
    if library not in _LIBRARIES:
        raise ValueError(f"library must be one of {', '.join(map(repr, _LIBRARIES))}, not {library!r}")
    if metric not in ("ip", "l2"):
        raise ValueError(f"metric must be 'ip' or 'l2', not {metric!r}")
    require_integer(connectivity, "connectivity", 2)
    require_integer(ef_construction, "ef_construction", 1)
    items = _labelled(model, "item")[1]
    if not len(items):
        raise ValueError("the model has no items to make an index of")
    squares = np.square(items, dtype=np.float64).sum(axis=1)
    if metric == "l2":
        items = np.column_stack([items, np.sqrt(squares.max() - squares)])
    items = np.ascontiguousarray(items, np.float32)
    index = AnnIndex(Path(path), library, metric, len(items), items.shape[1], float(np.sqrt(squares.max())))
    build = _LIBRARIES[library][0]
    with atomic_writer(path) as file:
        build(index, items, connectivity, ef_construction, resolve_threads(num_threads), file.name)
    return index


def _labelled(model: "Model", side: str) -> tuple["pd.Index", Floats]:
    """Return the labels of a side, and its factors."""
    import pandas as pd

    if side not in ("user", "item"):
        raise ValueError(f"side must be 'user' or 'item', not {side!r}")
    interactions = None
    if isinstance(model, Recommender):
        model, interactions = model._fitted()
    factors = getattr(model, f"{side}_factors")
    if factors is None:
        raise NotFittedError(f"this {type(model).__name__} has no factors yet: call fit first")
    labels = pd.RangeIndex(len(factors)) if interactions is None else getattr(interactions, f"{side}s")
    return labels, factors


def _labels_to_numpy(labels: "pd.Index", name: str) -> dict[str, NDArray[Any]]:
    """Return the labels as arrays that need no pickle: `name`, and for text the ends too."""
    import pandas as pd

    array = labels.to_numpy()
    if pd.api.types.infer_dtype(array) in ("string", "empty"):  # the latter is of no labels, of type object
        encoded = [label.encode() for label in array]
        ends = np.cumsum([len(label) for label in encoded], dtype=np.int64)
        return {name: np.frombuffer(b"".join(encoded), np.uint8), f"{name}_ends": ends}
    if array.dtype.hasobject:
        raise TypeError(
            f"{name} have labels of type {labels.inferred_type}, which numpy cannot save without pickle; "
            f"use to_parquet, or labels that are strings, e.g. {name}.astype(str)"
        )
    return {name: array}


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = {"faiss": "faiss-cpu", "usearch.index": "usearch"}.get(name, name)
        raise ImportError(f"cannot import {name} ({error}): pip install {package}", name=name) from error


def _build_hnswlib(
    index: AnnIndex, items: Floats, connectivity: int, ef_construction: int, threads: int, path: str
) -> None:
    graph = _library("hnswlib").Index(space=index.metric, dim=index.dimension)
    graph.init_index(len(items), M=connectivity, ef_construction=ef_construction, random_seed=0)
    graph.add_items(items, num_threads=threads)
    graph.save_index(path)
    if os.path.getsize(path) != graph.index_file_size():  # it does not notice a full disk
        raise OSError(f"hnswlib could not write all of {index.path}; is the disk full?")


def _search_hnswlib(index: AnnIndex, queries: Floats, n: int, ef: int) -> Any:
    graph = _library("hnswlib").Index(space=index.metric, dim=index.dimension)
    graph.load_index(str(index.path))
    graph.set_ef(ef)
    return graph.knn_query(queries, k=n, num_threads=1)[0]


def _build_faiss(
    index: AnnIndex, items: Floats, connectivity: int, ef_construction: int, threads: int, path: str
) -> None:
    faiss = _library("faiss")
    metric = faiss.METRIC_INNER_PRODUCT if index.metric == "ip" else faiss.METRIC_L2
    graph = faiss.IndexHNSWFlat(index.dimension, connectivity, metric)
    graph.hnsw.efConstruction = ef_construction
    graph.hnsw.efSearch = 100
    with threadpool_limits(threads, user_api="openmp"):
        graph.add(items)
    faiss.write_index(graph, path)


def _search_faiss(index: AnnIndex, queries: Floats, n: int, ef: int) -> Any:
    graph = _library("faiss").read_index(str(index.path))
    graph.hnsw.efSearch = ef
    with threadpool_limits(1, user_api="openmp"):
        return graph.search(queries, n)[1]


def _build_usearch(
    index: AnnIndex, items: Floats, connectivity: int, ef_construction: int, threads: int, path: str
) -> None:
    metric = "ip" if index.metric == "ip" else "l2sq"
    graph = _library("usearch.index").Index(
        ndim=index.dimension, metric=metric, dtype="f32", connectivity=connectivity, expansion_add=ef_construction
    )
    graph.add(np.arange(len(items)), items, threads=threads)
    graph.save(path)


def _search_usearch(index: AnnIndex, queries: Floats, n: int, ef: int) -> Any:
    graph = _library("usearch.index").Index.restore(index.path)
    graph.expansion_search = ef
    found = graph.search(queries, n, threads=1)
    items = np.full((len(queries), n), -1)
    for row, matches in zip(items, [found] if len(queries) == 1 else found, strict=True):
        row[: len(matches.keys)] = matches.keys  # only iterated are they without what fills up the array, which is 0
    return items


_LIBRARIES = {
    "hnswlib": (_build_hnswlib, _search_hnswlib),
    "faiss": (_build_faiss, _search_faiss),
    "usearch": (_build_usearch, _search_usearch),
}
