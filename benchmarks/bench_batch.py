"""Time worker processes and Ray workers against one process, and say what a million cells cost.

The three take turns in one run, on the same files with as many cores; medians count. Starting up
is left out: a rate is that of the middle 80% of the answers. Files are 575 x 575 JPEGs that all
differ, in the system's page cache.

    LEUKO_DATA=... python benchmarks/bench_batch.py [--quick] [--model M] [--files N] [--rounds N]
                                                    [--write docs/scale.md]

`--write` puts the table between the marks of that page; `--limit` fails below 0.8.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bench_predict import originals, write_files

from leuko.batch.partition import (
    PARTITION_ROWS,
    Answer,
    Piece,
    cut,
    decode_answers,
    encode_answers,
)
from leuko.batch.processes import Processes
from leuko.batch.work import write_predictions
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.sources import expand
from leuko.runtime.zoo import load
from leuko.support.artifacts import atomic_write_text
from leuko.support.host import machine
from leuko.support.parallel import worker_count

TARGET = 0.8
BEGIN, END = "<!-- bench_batch: begin -->", "<!-- bench_batch: end -->"


def middle_rate(counts: Iterable[int]) -> tuple[float, float]:
    """Answers a second between the tenth and the ninetieth percent; seconds to the first."""
    started = time.perf_counter()
    seen: list[tuple[float, int]] = []
    total = 0
    for count in counts:
        total += count
        seen.append((time.perf_counter() - started, total))
    inner = [(when, done) for when, done in seen if 0.1 * total <= done <= 0.9 * total]
    (first, low), (last, high) = inner[0], inner[-1]
    return (high - low) / (last - first), seen[0][0]


def one_process(classifier: OnnxClassifier, folder: Path) -> Iterator[int]:
    """Local: a count for every sixteen answers."""
    answers = classifier.stream(expand([str(folder)]))
    while part := list(islice(answers, 16)):
        yield len(part)


def engine_counts(engine: Any, folder: Path, model: str, size: int, keep: list[Answer]) -> Any:
    """An engine that is already started: a count for every answer."""
    keep.clear()
    parts = cut(expand([str(folder)]), model=model, size=size)
    for outcome in engine.run(Piece(part.index, 0, part.rows) for part in parts):
        if not isinstance(outcome, Answer):
            raise SystemExit(f"a worker was lost: {outcome.why}")
        keep.append(outcome)
        yield outcome.count


def megabytes(pids: Iterable[int]) -> int:
    """Largest resident size of any of these processes so far."""
    peaks = [0]
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                peaks.append(int(line.split()[1]) // 1024)
    return max(peaks)


def bytes_a_row(answers: list[Answer], classifier: OnnxClassifier) -> dict[str, float]:
    """What a row takes on disk: as a finished partition, as CSV, as Parquet."""
    ordered = sorted(answers, key=lambda answer: answer.piece)
    rows = [
        row
        for answer in ordered
        for row in decode_answers(answer.payload, "memory", classifier.scheme)
    ]
    parts = [rows[start : start + PARTITION_ROWS] for start in range(0, len(rows), PARTITION_ROWS)]
    found = {"partition": sum(len(encode_answers(part)) for part in parts) / len(rows)}
    with tempfile.TemporaryDirectory() as name:
        for suffix in ("csv", "parquet"):
            if suffix == "parquet" and importlib.util.find_spec("pyarrow") is None:
                continue
            out = Path(name) / f"p.{suffix}"
            write_predictions(out, parts, classifier.bundle)
            found[suffix] = out.stat().st_size / len(rows)
    return {kind: round(value, 1) for kind, value in found.items()}


def duration(seconds: float) -> str:
    """A time that a person can compare."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def table(document: dict[str, Any]) -> str:
    """The page's table, in Markdown."""
    cores = document["machine"]["cores"]
    lines = [
        f"Measured on {document['machine']['processor']}, {cores} cores, "
        f"{document['files']} files of 575 x 575 ({document['what']}), model {document['model']}, "
        f"medians of {document['rounds']} rounds in turn, start-up left out:",
        "",
        "| engine | images a second | of one process | a million cells | a hundred million, "
        "this machine | a hundred million, core hours |",
        "|---|---|---|---|---|---|",
    ]
    for name, rate in document["images_per_second"].items():
        share = rate / document["images_per_second"]["local"]
        lines.append(
            f"| {name} | {rate:.0f} | {share:.2f} | {duration(1e6 / rate)} | {duration(1e8 / rate)}"
            f" | {1e8 / rate * cores / 3600:.0f} |"
        )
    sizes = document["bytes_per_row"]
    lines += [
        "",
        "A million rows take "
        + ", ".join(f"{value:.0f} MB as {kind}" for kind, value in sizes.items())
        + f". A worker process held {document['worker_megabytes']} MB at most.",
        "Seconds until the first answers, workers started and models open: "
        + ", ".join(f"{name} {value:.1f}" for name, value in document["start_seconds"].items())
        + ".",
    ]
    return "\n".join(lines)


def write(page: Path, text: str) -> None:
    """Put the table between the marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or not after:
        raise SystemExit(f"{page} has no marks {BEGIN} and {END}")
    atomic_write_text(page, f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--files", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=128, help="rows of a piece")
    parser.add_argument("--quick", action="store_true", help="few files, one round")
    parser.add_argument("--write", type=Path, help="page to put the table into")
    parser.add_argument("--limit", action="store_true", help="fail below the target")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.files, arguments.rounds, arguments.size = 320, 1, 16
    workers = worker_count(None)
    classifier = load(arguments.model)
    engines: dict[str, Any] = {"processes": Processes(classifier.bundle, workers=workers)}
    if importlib.util.find_spec("ray") is not None:
        from leuko.batch.cluster import RayCluster

        engines["ray"] = RayCluster(classifier.bundle, workers=workers)
    else:
        print("Ray is left out: it is not installed", file=sys.stderr)
    rates: dict[str, list[float]] = {name: [] for name in ("local", *engines)}
    starts: dict[str, float] = {"local": 0.0}
    answers: list[Answer] = []
    pictures, what = originals()
    with tempfile.TemporaryDirectory(prefix="leuko-bench-") as name:
        folder = Path(name) / "cells"
        write_files(folder, arguments.files, pictures)
        peak = 0
        for number in range(arguments.rounds):
            rate, first = middle_rate(one_process(classifier, folder))
            rates["local"].append(rate)
            starts["local"] = starts["local"] or first
            for title, engine in engines.items():
                # Only one of them is there at a time, so that none takes cores from another.
                started = time.perf_counter()
                with engine:
                    entered = time.perf_counter() - started
                    rate, first = middle_rate(
                        engine_counts(engine, folder, classifier.digest, arguments.size, answers)
                    )
                    if title == "processes":
                        peak = max(peak, megabytes(engine.pids))
                rates[title].append(rate)
                starts.setdefault(title, entered + first)
            print(
                f"round {number + 1}: "
                + ", ".join(f"{title} {each[-1]:.0f}/s" for title, each in rates.items()),
                file=sys.stderr,
            )
        sizes = bytes_a_row(answers, classifier)
    medians = {title: round(statistics.median(each), 1) for title, each in rates.items()}
    document = {
        "images_per_second": medians,
        "each": {title: [round(rate, 1) for rate in each] for title, each in rates.items()},
        "of_local": {t: round(rate / medians["local"], 3) for t, rate in medians.items()},
        "start_seconds": {title: round(value, 2) for title, value in starts.items()},
        "bytes_per_row": sizes,
        "worker_megabytes": peak,
        "files": arguments.files,
        "rounds": arguments.rounds,
        "rows_of_a_piece": arguments.size,
        "rows_of_a_partition": PARTITION_ROWS,
        "model": classifier.name,
        "what": what,
        "load": round(os.getloadavg()[0], 2),
        "machine": machine(),
    }
    print(json.dumps(document, indent=2))
    print(table(document))
    if arguments.write is not None:
        write(arguments.write, table(document))
    slow = "ray" in medians and medians["ray"] < TARGET * medians["local"]
    return 1 if arguments.limit and slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
