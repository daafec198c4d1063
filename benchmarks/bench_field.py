"""Fields a second, found, sorted and written, and a whole slide.

    python benchmarks/bench_field.py [--fields N] [--slide FILE] [--limit]

Fields are drawn, with two white cells each. `--slide` also counts a slide, such as the one that
`bench_slide.py --slide FILE` draws. `--limit` fails below 10 and 4 fields a second, or above 3
minutes and 1.5 GB for the slide. The first field of a run pays for opening the models, so it is not
timed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import leuko
from leuko.data.synth import draw_field, draw_slide_style
from leuko.imaging.decode import encode_jpeg
from leuko.runtime.detectors import load_detector
from leuko.support.host import machine
from leuko.workflows.field import FieldOptions, run_fields

SIZES = {(480, 640): (8.0, 10.0), (900, 1440): (10.0, 4.0)}
"""Pixels to a micrometre, and the fewest fields a second, by rows and columns."""

SLIDE_S, SLIDE_MB = 180.0, 1500.0


def draw(folder: Path, rows: int, columns: int, scale: float, count: int) -> list[str]:
    """Draw fields as JPEG."""
    names = []
    for number in range(count):
        rng = np.random.default_rng([rows, number])
        style = draw_slide_style(np.random.default_rng([rows, 0]))
        field = draw_field(
            2, rng, style, height=rows, width=columns, pixels_per_micrometre=scale, cut_share=0.0
        )
        path = folder / f"{rows}-{number:03d}.jpg"
        path.write_bytes(encode_jpeg(field.pixels))
        names.append(str(path))
    return names


def count_slide(path: Path) -> dict[str, float]:
    """Count one slide in this process."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        report = run_fields([str(path)], Path(folder) / "run", leuko.load(), load_detector())
        seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cells": len(report.cells), "seconds": seconds, "megabytes": used.ru_maxrss / 1024}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fields", type=int, default=24)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--limit", action="store_true")
    parser.add_argument("--walk", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.walk:
        print(json.dumps(count_slide(arguments.slide)))
        return
    print(machine())
    faults = []
    classifier, detector = leuko.load(), load_detector()
    for (rows, columns), (scale, least) in SIZES.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            names = draw(folder, rows, columns, scale, arguments.fields + 1)
            run_fields(names[:1], folder / "first", classifier, detector, FieldOptions())
            started = time.perf_counter()
            report = run_fields(names[1:], folder / "run", classifier, detector, FieldOptions())
            each = arguments.fields / (time.perf_counter() - started)
        print(f"{columns}x{rows}: {each:.1f} fields a second, {len(report.cells)} cells")
        if each < least:
            faults.append(f"{columns}x{rows}: {each:.1f} a second, expected {least:.0f}")
    if arguments.slide:
        command = [sys.executable, __file__, "--walk", "--slide", str(arguments.slide)]
        said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(f"slide: {said['cells']} cells, {said['seconds']:.0f} s, {said['megabytes']:.0f} MB")
        if said["seconds"] > SLIDE_S or said["megabytes"] > SLIDE_MB:
            faults.append("the slide took too long or too much")
    if arguments.limit and faults:
        sys.exit("; ".join(faults))


if __name__ == "__main__":
    main()
