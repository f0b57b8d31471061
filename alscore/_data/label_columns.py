"""Labels as a column of an Arrow table, in files."""

import functools
from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa


def labels_to_arrow(labels: "pd.Index[Any]", name: str) -> pa.Table:
    """Return labels as a table of one column, from which pandas restores their dtype.

    `name` names the labels in the TypeError for labels that Arrow cannot hold.
    """
    unsupported = TypeError(
        f"{name} have labels of type {labels.inferred_type} that Arrow cannot hold; "
        f"use strings, numbers or dates, e.g. {name}.astype(str)"
    )
    try:
        table = pa.Table.from_pandas(pd.DataFrame({"label": labels}))
        restored = _from_arrow(table)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise unsupported from error
    if not restored.astype(object).equals(labels.astype(object)):
        raise unsupported
    return table


def labels_writer(labels: "pd.Index[Any]", name: str) -> Callable[[Any], None]:
    """Convert labels to Arrow now, and return a function that writes them to a file object.

    Raises the TypeError of `labels_to_arrow` at once, before a file is opened.
    """
    return functools.partial(_write, labels_to_arrow(labels, name))


def read_labels(source: Any) -> "pd.Index[Any]":
    """Read what `labels_writer` wrote, from a file object or from its bytes in memory."""
    table = pa.ipc.open_stream(source).read_all()
    table.validate(full=True)
    return _from_arrow(table)


def _write(table: pa.Table, file: Any) -> None:
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


def _from_arrow(table: pa.Table) -> "pd.Index[Any]":
    # labels are distinct: a search for equal objects would take time for nothing
    labels: pd.Index[Any] = pd.Index(table.to_pandas(deduplicate_objects=False)["label"], tupleize_cols=False)
    return labels.rename(None)
