"""Factors for other programs: tables and files with labels, and indexes for approximate nearest-neighbour search."""

import dataclasses
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from alscore import retrieval
from alscore._data.label_columns import labels_to_arrow
from alscore._support.arrays import Floats, Int64s
from alscore._support.checks import require_integer
from alscore._support.files import atomic_writer
from alscore._support.threads import resolve_threads
from alscore.als import AlternatingLeastSquares
from alscore.recommender import Recommender
from alscore.retrieval.factors import NotFittedError

Model = Recommender | AlternatingLeastSquares
StrPath = str | os.PathLike[str]

_EF_SEARCH = 100  # candidates that a search keeps by default: more of them find more and take longer


def to_arrow(model: Model, side: str) -> pa.Table:
    """Return the factors of one side, with their labels, as an Arrow table.

    Parameters
    ----------
    model : Recommender or AlternatingLeastSquares
        Fitted. The labels of an AlternatingLeastSquares are the ids 0, 1, 2, …
    side : {"user", "item"}

    Returns
    -------
    pyarrow.Table
        A row for each user or item, in the order of ids. The column with the name of the side holds the label. The
        column `factors` is a FixedSizeList(k) of the model's dtype. It is the model's own memory, not a copy.

    Raises
    ------
    NotFittedError
        The model is not fitted.
    ValueError
        `side` is not "user" or "item", or the numbers of labels and factors differ.
    TypeError
        Arrow has no type for the labels.

    Examples
    --------
    >>> from alscore import AlternatingLeastSquares, Recommender, datasets, export
    >>> recommender = Recommender(AlternatingLeastSquares(factors=16))
    >>> table = export.to_arrow(recommender.fit(datasets.synthetic(500, 300), show_progress=False), "item")
    >>> table.num_rows, str(table.schema.field("factors").type)
    (300, 'fixed_size_list<item: float>[16]')
    """
    labels, factors = _labelled(model, side)
    column = labels_to_arrow(labels, f"{side}s")["label"]
    return pa.table({side: column, "factors": pa.FixedSizeListArray.from_arrays(factors.ravel(), factors.shape[1])})


def to_parquet(model: Model, side: str, path: StrPath) -> None:
    """Write the table of `to_arrow` to a Parquet file.

    Parameters
    ----------
    model, side
        Same as for `to_arrow`.
    path : str or path
        The file. It is replaced once the new file is complete.

    Raises
    ------
    NotFittedError, ValueError, TypeError
        Same errors as `to_arrow`.
    OSError
        The file cannot be written.
    """
    table = to_arrow(model, side)
    with atomic_writer(path) as file:
        parquet.write_table(table, file, use_dictionary=False)  # values hardly repeat in either column


def to_npz(model: Model, path: StrPath) -> None:
    """Write the factors and the labels of both sides to one file for ``numpy.load(path)``. The file holds no pickle.

    The arrays are `user_factors` (n_users, k), `item_factors` (n_items, k), `users` and `items`. Labels that are
    numbers or dates are stored as numbers or dates. Labels that are text are stored as one array of bytes, because a
    numpy array of text takes four bytes for each character of the longest label in every row: for names of artists that
    is dozens of times the text itself. `items` (and likewise `users`) is then the UTF-8 bytes of all labels one after
    the other, uint8, and `items_ends`, int64 (n_items,), holds the position where each label ends::

        with np.load(path) as file:
            ends, text = file["items_ends"], file["items"].tobytes()
        items = [text[start:end].decode() for start, end in itertools.pairwise([0, *ends])]

    Parameters
    ----------
    model : Recommender or AlternatingLeastSquares
        Same as for `to_arrow`.
    path : str or path
        The file, without a change of its name: ".npz" is not added. It is replaced once the new file is complete.

    Raises
    ------
    NotFittedError, ValueError
        Same errors as `to_arrow`.
    TypeError
        numpy has no type for the labels, such as dates with a time zone.
    OSError
        The file cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for side in ("user", "item"):
        labels, arrays[f"{side}_factors"] = _labelled(model, side)
        arrays |= _labels_to_numpy(labels, f"{side}s")
    with atomic_writer(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # mypy checks them against allow_pickle


@dataclasses.dataclass(frozen=True)
class AnnIndex:
    """An index that `export_ann` has written.

    Attributes
    ----------
    path : pathlib.Path
    library : str
        The library that opens it: "hnswlib", "faiss" or "usearch". See `export_ann`.
    metric : str
        "ip" or "l2".
    n_items : int
    dimension : int
        Length of its vectors: k, or k + 1 with the extra dimension of "l2".
    max_norm : float
        M, the largest Euclidean norm of an item's factors.
    """

    path: Path
    library: str
    metric: str
    n_items: int
    dimension: int
    max_norm: float

    def queries(self, user_factors: Floats) -> NDArray[np.float32]:
        """Return the query vectors of users: their factors, and 0 in the extra dimension.

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

    def search(self, user_factors: Floats, n: int = 10, ef: int = _EF_SEARCH) -> Int64s:
        """Open the index in its library, and find the n items with the highest scores for each user.

        This opens the file in each call. To serve from an index, open it once with its library, as `export_ann` shows.

        Parameters
        ----------
        user_factors : float array, shape (n_users, k)
        n : int
            Items for each user, from 1 to `n_items`.
        ef : int
            Candidates that the search keeps, at least n (a smaller number counts as n). More candidates find more of
            the best items, and take longer.

        Returns
        -------
        int64 array, shape (n_users, n)
            Item ids, best first. -1 fills the rest of a row if the search reaches fewer than n items.

        Raises
        ------
        ImportError
            The library is not installed.
        ValueError
            `n` is out of range.
        RuntimeError
            hnswlib reaches fewer than n items. Raise `ef`, or make the index with a larger `connectivity` or
            `ef_construction`.
        """
        require_integer(n, "n", 1)
        if n > self.n_items:
            raise ValueError(f"n must be at most {self.n_items}, the number of items in the index, not {n}")
        library = _LIBRARIES[self.library]
        ids: Int64s = library.search(self, self.queries(user_factors), n, max(n, ef)).astype(np.int64)
        return ids

    def recall(self, model: Model, n: int = 10, ef: int = _EF_SEARCH, n_users: int = 1000) -> float:
        """Measure which share of the exact n best items the index finds.

        Parameters
        ----------
        model : Recommender or AlternatingLeastSquares
            The model that the index was made from.
        n, ef
            Same as for `search`.
        n_users : int
            Maximum number of users to search for. They are evenly spaced among the users whose factors are not 0; for
            the other users all items have equal scores.

        Returns
        -------
        float
            Mean over the users, from 0 to 1.

        Raises
        ------
        ValueError
            An argument is out of range, or the factors of all users are 0.
        ImportError, RuntimeError
            Same errors as `search`.
        """
        require_integer(n_users, "n_users", 1)
        users, items = (_labelled(model, side)[1] for side in ("user", "item"))
        users = users[users.any(axis=1)]
        if not len(users):
            raise ValueError("the model has no user to search for: the factors of all users are 0")
        users = users[np.linspace(0, len(users) - 1, min(n_users, len(users))).astype(np.int64)]
        approximate = self.search(users, n, ef)
        exact, _ = retrieval.top_n(users, items, n)
        return float(np.mean(exact[:, :, None] == approximate[:, None, :]) * n)


def export_ann(
    model: Model,
    library: str,
    path: StrPath,
    *,
    metric: str = "ip",
    connectivity: int = 16,
    ef_construction: int = 200,
    num_threads: int = 1,
) -> AnnIndex:
    """Write an HNSW graph of the item factors, for a library of approximate nearest-neighbour search.

    The graph finds the items with the largest inner products with a user's factors. Its ids are item ids:
    ``recommender.interactions.items[ids]`` are the labels. To search in another process, take the attribute `dimension`
    of the returned AnnIndex and the float32 queries of its method `queries`::

        index = hnswlib.Index(space="ip", dim=dimension)
        index.load_index(path)
        index.set_ef(100)
        ids, distances = index.knn_query(queries, k=10)         # distance: 1 - score

        index = faiss.read_index(path)                          # efSearch is 100
        scores, ids = index.search(queries, 10)

        index = usearch.index.Index.restore(path)
        index.expansion_search = 100
        ids = index.search(queries, 10).keys                    # distance: 1 - score

    The theory of HNSW covers distances only. Bachrach et al. (2014) turn inner products into distances: each item gets
    one more dimension, ``sqrt(M**2 - |y|**2)`` with M the largest norm, and each query a 0 there. The nearest item by
    L2 or cosine is then the item with the largest inner product. But this moves nearly all items of a trained model to
    one region, where the search gets lost. Recall@10 over all users of ``datasets.synthetic(20_000, 15_000, seed=0)``,
    with 64 factors and ef = 100:

    ===================================  =======  =====  =======
    metric                               hnswlib  faiss  usearch
    ===================================  =======  =====  =======
    "ip", the library's inner product    0.993    0.994  0.993
    "l2", with the extra dimension       0.46     0.53   0.45
    ===================================  =======  =====  =======

    To measure the same, also for your own model::

        model = AlternatingLeastSquares(factors=64, random_state=0).fit(datasets.synthetic(20_000, 15_000, seed=0))
        index = export_ann(model, "faiss", "index", metric="l2")
        index.recall(model, n_users=20_000)

    Cosine with the extra dimension finds the same items as "l2". Morozov and Babenko (2018) explain why a graph of
    inner products is better.

    Parameters
    ----------
    model : Recommender or AlternatingLeastSquares
        Fitted.
    library : {"hnswlib", "faiss", "usearch"}
        Install one with ``pip install hnswlib``, ``faiss-cpu`` or ``usearch``, or all three with
        ``pip install alscore[ann]``. hnswlib has no wheels: pip needs a C++ compiler for it.
    path : str or path
        The file of the index, in the library's own format. It is replaced once the new file is complete.
    metric : {"ip", "l2"}
        "ip" searches by inner product, "l2" by distance with the extra dimension: see the table.
    connectivity : int
        Links of each item (HNSW's M), at least 2; the lowest layer has twice as many. More links find more of the best
        items, and take more memory.
    ef_construction : int
        Candidates for these links, at least 1.
    num_threads : int
        Threads that build the graph; 0: all CPUs of this process. With 1 thread the file always has the same bytes,
        with more threads the bytes vary.

    Returns
    -------
    AnnIndex

    Raises
    ------
    ImportError
        The library is not installed.
    NotFittedError
        The model is not fitted.
    ValueError
        An argument is not as described, or the model has no items.
    OSError, RuntimeError
        The index cannot be written. faiss and usearch raise a RuntimeError.
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
    with atomic_writer(path) as file:
        graph = _Graph(index, items, connectivity, ef_construction, resolve_threads(num_threads), file.name)
        _LIBRARIES[library].build(graph)
    return index


def _labelled(model: Model, side: str) -> tuple["pd.Index[Any]", Floats]:
    """Return the labels of a side, and its factors."""
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


def _labels_to_numpy(labels: "pd.Index[Any]", name: str) -> dict[str, NDArray[Any]]:
    """Return labels as arrays by member name, without pickle.

    Text: UTF-8 bytes in `name`, and the end of each label in ``{name}_ends``.
    """
    array = labels.to_numpy()
    if pd.api.types.infer_dtype(array) in ("string", "empty"):  # "empty": no labels, dtype object
        encoded = [label.encode() for label in array]
        ends = np.cumsum([len(label) for label in encoded], dtype=np.int64)
        return {name: np.frombuffer(b"".join(encoded), np.uint8), f"{name}_ends": ends}
    if array.dtype.hasobject:
        raise TypeError(
            f"{name} have labels of type {labels.inferred_type}, which numpy cannot save without pickle; "
            f"use to_parquet, or labels that are strings, e.g. {name}.astype(str)"
        )
    return {name: array}


@dataclasses.dataclass(frozen=True)
class _Graph:
    """A graph to build.

    Attributes
    ----------
    index : AnnIndex
    items : float32 array, shape (n_items, dimension)
        C-contiguous.
    connectivity, ef_construction : int
    threads : int
        At least 1.
    file : str
        The path to write the graph to.
    """

    index: AnnIndex
    items: Floats
    connectivity: int
    ef_construction: int
    threads: int
    file: str


def _module(name: str, package: str) -> Any:
    """Import a module of a library, or say which package has it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"cannot import {name} ({error}): pip install {package}", name=name) from error


def _hnswlib() -> Any:
    return _module("hnswlib", "hnswlib")


def _faiss() -> Any:
    return _module("faiss", "faiss-cpu")


def _usearch() -> Any:
    return _module("usearch.index", "usearch")


def _build_hnswlib(graph: _Graph) -> None:
    hnsw = _hnswlib().Index(space=graph.index.metric, dim=graph.index.dimension)
    hnsw.init_index(len(graph.items), M=graph.connectivity, ef_construction=graph.ef_construction, random_seed=0)
    hnsw.add_items(graph.items, num_threads=graph.threads)
    hnsw.save_index(graph.file)
    if os.path.getsize(graph.file) != hnsw.index_file_size():  # hnswlib does not notice a full disk
        raise OSError(f"hnswlib could not write all of {graph.index.path}; is the disk full?")


def _search_hnswlib(index: AnnIndex, queries: Floats, n: int, ef: int) -> Any:
    hnsw = _hnswlib().Index(space=index.metric, dim=index.dimension)
    hnsw.load_index(str(index.path))
    hnsw.set_ef(ef)
    return hnsw.knn_query(queries, k=n, num_threads=1)[0]


def _build_faiss(graph: _Graph) -> None:
    from threadpoolctl import threadpool_limits  # sets the environment variable KMP_DUPLICATE_LIB_OK

    faiss = _faiss()
    metric = faiss.METRIC_INNER_PRODUCT if graph.index.metric == "ip" else faiss.METRIC_L2
    hnsw = faiss.IndexHNSWFlat(graph.index.dimension, graph.connectivity, metric)
    hnsw.hnsw.efConstruction = graph.ef_construction
    hnsw.hnsw.efSearch = _EF_SEARCH
    with threadpool_limits(graph.threads, user_api="openmp"):
        hnsw.add(graph.items)
    faiss.write_index(hnsw, graph.file)


def _search_faiss(index: AnnIndex, queries: Floats, n: int, ef: int) -> Any:
    from threadpoolctl import threadpool_limits

    hnsw = _faiss().read_index(str(index.path))
    hnsw.hnsw.efSearch = ef
    with threadpool_limits(1, user_api="openmp"):
        return hnsw.search(queries, n)[1]


def _build_usearch(graph: _Graph) -> None:
    hnsw = _usearch().Index(
        ndim=graph.index.dimension,
        metric="ip" if graph.index.metric == "ip" else "l2sq",
        dtype="f32",
        connectivity=graph.connectivity,
        expansion_add=graph.ef_construction,
    )
    hnsw.add(np.arange(len(graph.items)), graph.items, threads=graph.threads)
    hnsw.save(graph.file)


def _search_usearch(index: AnnIndex, queries: Floats, n: int, ef: int) -> Any:
    hnsw = _usearch().Index.restore(index.path)
    hnsw.expansion_search = ef
    results = hnsw.search(queries, n, threads=1)
    items = np.full((len(queries), n), -1)
    # `results` is an array padded with 0. Iteration over it gives each query's matches without the padding.
    for row, matches in zip(items, [results] if len(queries) == 1 else results, strict=True):
        row[: len(matches.keys)] = matches.keys
    return items


class _Library(NamedTuple):
    """How to build a graph with a library, and how to search it: (index, queries, n, ef) -> item ids."""

    build: Callable[[_Graph], None]
    search: Callable[[AnnIndex, Floats, int, int], Any]


_LIBRARIES = {
    "hnswlib": _Library(_build_hnswlib, _search_hnswlib),
    "faiss": _Library(_build_faiss, _search_faiss),
    "usearch": _Library(_build_usearch, _search_usearch),
}
