"""Measure the strict limits of start-up and memory: `import leuko`, one prediction, peak memory.

Whole processes are timed, after one warm-up, and the median counts. Memory is the largest
resident size of the process, as the operating system saw it.

    python benchmarks/bench_limits.py [--images 20000] [--runs 7] [--limit]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from leuko.data.synth import draw_cell, draw_slide_style
from leuko.imaging.decode import encode_jpeg
from leuko.scheme import load_scheme
from leuko.support.host import machine

CLASSES = load_scheme("differential-5").names

IMPORT_LIMIT, PREDICT_LIMIT, MEMORY_LIMIT = 0.3, 1.0, 4096.0


def seconds_of(command: list[str], runs: int) -> float:
    """Median wall time of a whole process."""
    times = []
    for number in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if number:
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def megabytes_of(command: list[str]) -> float:
    """Peak resident size of a process, through a child that reports its own child's."""
    code = (
        "import json,resource,subprocess,sys;"
        "subprocess.run(json.loads(sys.argv[1]),check=True,stdout=subprocess.DEVNULL,"
        "stderr=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(command)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return int(done.stdout) / 1024


def main() -> None:
    """Measure, print one JSON document, and with --limit fail above a limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--limit", action="store_true")
    arguments = parser.parse_args()
    leuko = [sys.executable, "-m", "leuko"]
    with tempfile.TemporaryDirectory(prefix="leuko-bench-") as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        cell = draw_cell(CLASSES[4], rng, draw_slide_style(rng), size=575)
        data = encode_jpeg(cell.pixels, quality=95, subsampling="420")
        one = folder / "one.jpg"
        one.write_bytes(data)
        peaks = {}
        for count in (arguments.images // 4, arguments.images):
            many = folder / f"many-{count}"
            many.mkdir()
            for number in range(count):
                os.link(one, many / f"{number:06d}.jpg")
            command = [*leuko, "predict", str(many), "--csv", str(folder / f"{count}.csv")]
            peaks[count] = round(megabytes_of(command))
        bare = seconds_of([sys.executable, "-c", "pass"], arguments.runs)
        imported = seconds_of([sys.executable, "-c", "import leuko"], arguments.runs) - bare
        predicted = seconds_of([*leuko, "predict", str(one)], arguments.runs)
    document = {
        "import_seconds": round(imported, 3),
        "predict_one_seconds": round(predicted, 3),
        "predict_peak_megabytes": peaks,
        "own_peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "machine": machine(),
    }
    print(json.dumps(document, indent=2))
    broken = (
        imported > IMPORT_LIMIT or predicted > PREDICT_LIMIT or max(peaks.values()) > MEMORY_LIMIT
    )
    if arguments.limit and broken:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
