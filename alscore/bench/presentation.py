"""The outcome of a benchmark as text (lines and a table) or as a plot."""

from collections.abc import Iterable
from typing import Any, BinaryIO

from alscore._support.figures import figure
from alscore.bench.benchmarks import BENCHMARKS, SECONDS, Column


def above(outcome: dict[str, Any]) -> list[str]:
    """Return the lines above the table: what was measured, on which machine, with which versions."""
    settings, machine = outcome["settings"], outcome["machine"]
    lines = [f"{settings['bench']}: {_measured(outcome)}"]
    if data := outcome.get("data"):
        lines.append(", ".join(f"{count:,} {what}" for what, count in data.items()))
    lines.append(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items() if name != "bench"))
    lines.append(f"{machine['cpu']}, kernel set {machine['isa']}")
    versions = {name: machine[name] for name in ("python", "numpy", "scipy")} | outcome["versions"]
    lines.append(", ".join(f"{package} {version}" for package, version in versions.items()))
    if ignored := outcome["not_passed_on"]:
        variables = " ".join(f"{name}={value}" for name, value in ignored.items())
        lines.append(f"{variables} not passed on: the BLAS of each contender chooses its own kernels")
    if "fma_peak" in outcome:
        lines.append(
            f"measured peaks: FMA {outcome['fma_peak'] / 1e9:,.0f} GFLOP/s, "
            f"gather {outcome['gather_bandwidth'] / 1e9:,.1f} GB/s; "
            f"transpose and factors alone: {outcome['least_bytes'] / 1e6:,.0f} MB"
        )
    if "expected_shuffle_bytes" in outcome:
        lines.append(
            f"factors that blocks need of each other: {outcome['expected_shuffle_bytes'] / 1e6:,.0f} MB an iteration"
        )
    if "targets" in outcome:
        targets = {f"after {settings['reference_sweeps']} exact sweeps": outcome["reference"], **outcome["targets"]}
        lines.append("objective " + ", ".join(f"{label} {value:,.0f}" for label, value in targets.items()))
    return lines


def table(outcome: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the heading and the rows, one row for each contender."""
    if "targets" in outcome:
        return _table_of_targets(outcome)
    columns = BENCHMARKS[outcome["settings"]["bench"]].columns
    header = ("contender", *_headings(SECONDS), "ratio", *_headings(columns))
    rows = [
        (result["contender"], *_cells(result, SECONDS), _ratio(result), *_cells(result, columns))
        for result in outcome["results"]
    ]
    return header, rows


def _table_of_targets(outcome: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    labels = list(outcome["targets"])
    header = ("contender", *(text for label in labels for text in (label, "ratio")), "last objective")
    rows = [
        (
            result["contender"],
            *(text for label in labels for text in _seconds_and_ratio(result["reached"][label])),
            f"{result['objective'][-1]:,.0f}",
        )
        for result in outcome["results"]
    ]
    return header, rows


def below(outcome: dict[str, Any]) -> list[str]:
    """Return the lines below the table: contenders without a row, notes on rows, and warnings about noise."""
    contenders_by_note: dict[str, list[str]] = {}
    for result in outcome["results"]:
        if "note" in result:
            contenders_by_note.setdefault(result["note"], []).append(result["contender"])
    return [
        *(f"{name} failed: {reason}" for name, reason in outcome["failed"].items()),
        *(f"{name} skipped: {reason}" for name, reason in outcome["skipped"].items()),
        *(f"{', '.join(names)}: {note}" for note, names in contenders_by_note.items()),
        *outcome["noise"],
    ]


def plot(outcome: dict[str, Any], file: BinaryIO) -> None:
    """Draw a PNG: medians as bars, with a line from min to max; for `converge` the objective over the seconds.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    drawn = figure(8, 5)
    axes = drawn.subplots()
    results = outcome["results"]
    if "targets" in outcome:
        for result in results:
            excess = (value / outcome["reference"] - 1 for value in result["objective"])
            visible = [max(value, 0) or float("nan") for value in excess]
            axes.plot(result["cumulated"], visible, ".-", label=result["contender"])
        axes.set(yscale="log", ylabel="objective above the reference, relative", xlabel="seconds")
        axes.legend()
    else:
        medians = [result["median"] for result in results]
        below = [result["median"] - result["min"] for result in results]
        above = [result["max"] - result["median"] for result in results]
        axes.barh([result["contender"] for result in results], medians, xerr=[below, above], capsize=3)
        axes.invert_yaxis()
        axes.set(xlabel=_measured(outcome))
    drawn.savefig(file, format="png")


def _measured(outcome: dict[str, Any]) -> str:
    return BENCHMARKS[outcome["settings"]["bench"]].measured


def _headings(columns: Iterable[Column]) -> Iterable[str]:
    return (column.heading for column in columns)


def _cells(result: dict[str, Any], columns: Iterable[Column]) -> Iterable[str]:
    return (text(result[key]) if result.get(key) is not None else "-" for _, key, text in columns)


def _seconds_and_ratio(statistics: dict[str, Any] | None) -> tuple[str, str]:
    return (f"{statistics['median']:.3f}", _ratio(statistics)) if statistics else ("-", "-")


def _ratio(statistics: dict[str, Any]) -> str:
    if "ratio" not in statistics:
        return "-"
    if statistics["ratio_low"] == statistics["ratio_high"]:  # the baseline, or one repeat
        return f"{statistics['ratio']:.2f}"
    return f"{statistics['ratio']:.2f} ({statistics['ratio_low']:.2f}-{statistics['ratio_high']:.2f})"
