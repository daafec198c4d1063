"""Time reading a drawn slide of 400 megapixels tile by tile, and say what memory it takes.

    python benchmarks/bench_slide.py [--side 20480] [--workers N] [--slide FILE] [--limit]

The slide is a pyramid of JPEG tiles at 4 pixels to a micrometre, half of it smear. Each row of the
table is a process of its own. `--limit` fails where reading alone takes more than 60 s of one core
or 600 MB.
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

from leuko.cells.detector import Detection
from leuko.field.tiles import find_in, tiles
from leuko.field.tissue import tissue_of
from leuko.imaging.slide import open_field
from leuko.runtime.detectors import DETECTORS
from leuko.source import file_source
from leuko.support.host import machine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from drawn_slide import draw_slide, write_slide

SCALE = 4.0
CORE, MARGIN = 1024, 128
SECONDS, MEGABYTES = 60.0, 600.0


class Nothing:
    """Finds nothing: what remains is reading."""

    name = "nothing"
    working = SCALE

    def find(
        self, pixels: np.ndarray, *, pixels_per_micrometre: float | None = None
    ) -> list[Detection]:
        """See `leuko.cells.detector.Detector`."""
        assert pixels.size
        assert pixels_per_micrometre
        return []


def peak() -> float:
    """Megabytes that this process took: of `ru_maxrss` a part may be its parent's."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def walk(path: str, name: str, workers: int | None) -> dict[str, float]:
    """Search one slide in this process."""
    detector = Nothing() if name == Nothing.name else DETECTORS[name]()
    started = time.perf_counter()
    with open_field(file_source(path)) as image:
        tissue = tissue_of(image)
        mapped = time.perf_counter() - started
        found = find_in(
            image, detector, image.pixels_per_micrometre or SCALE,
            core=CORE, margin=MARGIN, tissue=tissue, workers=workers,
        )  # fmt: skip
        counts = [
            sum(1 for _ in tiles(image.size, 1.0, CORE, MARGIN, kept)) for kept in (tissue, None)
        ]
        for fault in image.faults:
            print(fault, file=sys.stderr)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "tiles": counts[0], "of": counts[1], "found": len(found), "overview": mapped,
        "seconds": time.perf_counter() - started, "cpu": used.ru_utime + used.ru_stime,
        "megabytes": peak(),
    }  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--side", type=int, default=20_480)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--limit", action="store_true")
    parser.add_argument("--walk", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.walk:
        print(json.dumps(walk(str(arguments.slide), arguments.walk, arguments.workers)))
        return
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.slide or Path(folder) / "slide.svs"
        if not path.exists():
            started = time.perf_counter()
            slide = draw_slide((arguments.side, arguments.side - 960))
            write_slide(slide, path)
            size = path.stat().st_size / 1e6
            print(
                f"{slide.size[0]} x {slide.size[1]}, {size:.0f} MB, {len(slide.boxes())} white "
                f"cells, drawn in {time.perf_counter() - started:.0f} s"
            )
        print("| detector | tiles | found | overview, s | seconds | CPU seconds | MB |")
        print("|---|---|---|---|---|---|---|")
        for name in (Nothing.name, *DETECTORS):
            command = [sys.executable, __file__, "--slide", str(path), "--walk", name]
            command += ["--workers", str(arguments.workers)] if arguments.workers else []
            said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            print(
                f"| {name} | {said['tiles']} of {said['of']} | {said['found']} | "
                f"{said['overview']:.1f} | {said['seconds']:.1f} | {said['cpu']:.1f} | "
                f"{said['megabytes']:.0f} |"
            )
            slow = said["cpu"] > SECONDS or said["megabytes"] > MEGABYTES
            if arguments.limit and name == Nothing.name and slow:
                sys.exit(f"Reading took more than {SECONDS:.0f} s or {MEGABYTES:.0f} MB.")


if __name__ == "__main__":
    main()
