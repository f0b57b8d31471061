"""What a benchmark came to, for people: lines and a table, or a plot."""

from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

from alscore._support.figures import figure

Column = tuple[str, str, Callable[[Any], str]]  # heading, key of the result, its text


def _scaled(unit: float) -> Callable[[float], str]:
    return lambda value: f"{value / unit:,.0f}"


_SECONDS: tuple[Column, ...] = tuple((name, name, "{:.3f}".format) for name in ("median", "min", "max"))
_PEAK: Column = ("peak MB", "peak_bytes", _scaled(1e6))
_COLUMNS: dict[str, tuple[Column, ...]] = {
    "sweep": (
        ("GFLOP/s", "flops", _scaled(1e9)),
        ("of FMA peak", "fma_share", "{:.0%}".format),
        ("least gather of peak", "gather_share", "{:.0%}".format),
        _PEAK,
        ("last objective", "objective", lambda values: f"{values[-1]:,.0f}"),
    ),
    "topn": (
        ("users/s", "users_per_second", _scaled(1)),
        ("first call", "first", "{:.3f}".format),
        ("same ids", "same_ids", "{:.3%}".format),
    ),
    "load": (("rows/s", "rows_per_second", _scaled(1)), ("entries", "entries", _scaled(1)), _PEAK),
    "foldin": (("users/s", "users_per_second", _scaled(1)), ("first call", "first", "{:.3f}".format)),
    "update": (("objective", "objective", _scaled(1)),),
    "spark": (
        ("setup", "setup", "{:.1f}".format),
        ("shuffle MB", "shuffle_bytes", _scaled(1e6)),
        ("JVM MB", "jvm_bytes", _scaled(1e6)),
        ("Python MB", "python_bytes", _scaled(1e6)),
        ("objective", "objective", _scaled(1)),
        ("top-N", "top_seconds", "{:.1f}".format),
        ("top-N ratio", "top_ratio", "{:.2f}".format),
    ),
    "evaluate": (
        ("users/s", "users_per_second", _scaled(1)),
        ("NDCG", "ndcg", "{:.4f}".format),
        ("recall", "recall", "{:.4f}".format),
    ),
}
_MEASURED = {
    "sweep": "seconds of a sweep, users and items",
    "converge": "seconds until the objective is as low as a target",
    "topn": "seconds to recommend",
    "load": "seconds to read",
    "foldin": "seconds to solve users from their rows",
    "update": "seconds to take in new plays, one in twenty",
    "spark": "seconds of an iteration on Apache Spark, users and items",
    "evaluate": "seconds to rank and judge",
}


def above(answer: dict[str, Any]) -> list[str]:
    """The conditions: what was measured, on which machine, with which versions."""
    settings, machine = answer["settings"], answer["machine"]
    lines = [f"{settings['bench']}: {_MEASURED[settings['bench']]}"]
    if data := answer.get("data"):
        lines.append(", ".join(f"{count:,} {what}" for what, count in data.items()))
    lines.append(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items() if name != "bench"))
    lines.append(f"{machine['cpu']}, kernel set {machine['isa']}")
    versions = {name: machine[name] for name in ("python", "numpy", "scipy")} | answer["versions"]
    lines.append(", ".join(f"{package} {version}" for package, version in versions.items()))
    if ignored := answer["not_passed_on"]:
        variables = " ".join(f"{name}={value}" for name, value in ignored.items())
        lines.append(f"{variables} not passed on: the BLAS of each contender chooses its own kernels")
    if "fma_peak" in answer:
        lines.append(
            f"measured peaks: FMA {answer['fma_peak'] / 1e9:,.0f} GFLOP/s, "
            f"gather {answer['gather_bandwidth'] / 1e9:,.1f} GB/s; "
            f"transpose and factors alone: {answer['least_bytes'] / 1e6:,.0f} MB"
        )
    if "expected_shuffle_bytes" in answer:
        lines.append(
            f"factors that blocks need of each other: {answer['expected_shuffle_bytes'] / 1e6:,.0f} MB an iteration"
        )
    if "targets" in answer:
        targets = {f"after {settings['reference_sweeps']} exact sweeps": answer["reference"], **answer["targets"]}
        lines.append("objective " + ", ".join(f"{label} {value:,.0f}" for label, value in targets.items()))
    return lines


def table(answer: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The heading and the rows, one for each contender."""
    if answer["settings"]["bench"] == "converge":
        labels = list(answer["targets"])
        header = ("contender", *(text for label in labels for text in (label, "ratio")), "last objective")
        rows = [
            (
                row["contender"],
                *(text for label in labels for text in _until(row["reached"][label])),
                f"{row['objective'][-1]:,.0f}",
            )
            for row in answer["results"]
        ]
        return header, rows
    columns = _COLUMNS[answer["settings"]["bench"]]
    header = ("contender", *_headings(_SECONDS), "ratio", *_headings(columns))
    rows = [(row["contender"], *_cells(row, _SECONDS), _ratio(row), *_cells(row, columns)) for row in answer["results"]]
    return header, rows


def below(answer: dict[str, Any]) -> list[str]:
    """What is missing from the table, what is to be known of its rows, and what it does not allow to conclude."""
    named: dict[str, list[str]] = {}
    for row in answer["results"]:
        if "note" in row:
            named.setdefault(row["note"], []).append(row["contender"])
    return [
        *(f"{name} failed: {why}" for name, why in answer["failed"].items()),
        *(f"{name} skipped: {why}" for name, why in answer["skipped"].items()),
        *(f"{', '.join(names)}: {note}" for note, names in named.items()),
        *answer["noise"],
    ]


def plot(answer: dict[str, Any], file: BinaryIO) -> None:
    """Draw a PNG: medians as bars from min to max, or for `converge` the objective against seconds.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    drawn = figure(8, 5)
    axes = drawn.subplots()
    results = answer["results"]
    if answer["settings"]["bench"] == "converge":
        for row in results:
            above = [value / answer["reference"] - 1 for value in row["objective"]]
            axes.plot(
                row["cumulated"], [max(value, 0) or float("nan") for value in above], ".-", label=row["contender"]
            )
        axes.set(yscale="log", ylabel="objective above the reference, relative", xlabel="seconds")
        axes.legend()
    else:
        middles = [row["median"] for row in results]
        whiskers = [[row["median"] - row["min"] for row in results], [row["max"] - row["median"] for row in results]]
        axes.barh([row["contender"] for row in results], middles, xerr=whiskers, capsize=3)
        axes.invert_yaxis()
        axes.set(xlabel=_MEASURED[answer["settings"]["bench"]])
    drawn.savefig(file, format="png")


def _headings(columns: Iterable[Column]) -> Iterable[str]:
    return (heading for heading, _, _ in columns)


def _cells(row: dict[str, Any], columns: Iterable[Column]) -> Iterable[str]:
    return (text(row[key]) if row.get(key) is not None else "-" for _, key, text in columns)


def _until(row: dict[str, Any] | None) -> tuple[str, str]:
    return (f"{row['median']:.3f}", _ratio(row)) if row else ("-", "-")


def _ratio(row: dict[str, Any]) -> str:
    if "ratio" not in row:
        return "-"
    if row["ratio_low"] == row["ratio_high"]:  # the baseline, or one repeat
        return f"{row['ratio']:.2f}"
    return f"{row['ratio']:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})"
