"""Time `leuko balance` against the published loop, on the benchmark folder of the README.

The folder: the sample's 30 neutrophils under 300 names and 6 originals of each other class, so
that 4 x 294 copies are drawn. A figure is the time of the whole call divided by the images drawn.

The rival is rebuilt from the description of the published notebook: for every copy, Keras's
`load_img`, `ImageDataGenerator.random_transform` (SciPy's affine warp, one channel at a time)
and `save_img`, one process. It draws fewer copies, as its time for each is constant.

    LEUKO_DATA=... python benchmarks/bench_balance.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from leuko.data.balance.write import JpegStyle, write_balanced
from leuko.data.reading import read_folder
from leuko.scheme import load_scheme
from leuko.support.parallel import worker_count

CLASSES = load_scheme("differential-5").names

NEUTROPHILS, OTHERS = 300, 6


def build(sample: Path, folder: Path) -> Path:
    """Lay out the benchmark folder."""
    for name in CLASSES:
        files = sorted((sample / name).iterdir())
        wanted = NEUTROPHILS if name == "Neutrophil" else OTHERS
        (folder / name).mkdir(parents=True)
        for number in range(wanted):
            source = files[number % len(files)]
            # A new name in the place where the cell's number stands keeps the slide readable.
            target = source.name
            if number >= len(files):
                target = f"{source.stem}-{number // len(files)}{source.suffix}"
            (folder / name / target).write_bytes(source.read_bytes())
    return folder


def ours(train: Path, out: Path, workers: int) -> tuple[float, float]:
    """Milliseconds for each drawn image: plan, decode, warp, encode, write, copy.

    The second figure is processor time, which a busy machine stretches less.
    """
    manifest = read_folder(train)
    started, used = time.perf_counter(), time.process_time()
    report = write_balanced(manifest, out, seed=0, workers=workers)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    drawn = int(report.plan.augmented.sum())
    assert report.written == report.plan.total == 5 * NEUTROPHILS
    assert sum(1 for _ in out.glob("*/*.jpg")) == report.plan.total
    return 1000 * seconds / drawn, 1000 * used / drawn


def published(train: Path, out: Path, drawn: int) -> float:
    """Milliseconds for each image drawn by the published loop."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from keras.src.legacy.preprocessing.image import ImageDataGenerator
    from keras.utils import img_to_array, load_img, save_img

    generator = ImageDataGenerator(
        rotation_range=15, zoom_range=0.1, horizontal_flip=True, fill_mode="nearest"
    )
    files = [file for name in CLASSES[:4] for file in sorted((train / name).iterdir())]
    for file in files:
        (out / file.parent.name).mkdir(parents=True, exist_ok=True)
    generator.random_transform(img_to_array(load_img(files[0])))  # imports are not counted
    started = time.perf_counter()
    for number in range(drawn):
        source = files[number % len(files)]
        pixels = generator.random_transform(img_to_array(load_img(source)))
        save_img(out / source.parent.name / f"aug_{number}_{source.name}", pixels)
    return 1000 * (time.perf_counter() - started) / drawn


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rival-images", type=int, default=60, help="0 leaves the rival out")
    parser.add_argument("--limit", type=float, help="fail above this many milliseconds")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    data = os.environ.get("LEUKO_DATA")
    sample = Path(data or ".") / "raabin-wbc-original-sample" / "Train"
    if not data or not sample.is_dir():
        print("skipped: LEUKO_DATA does not point to the original sample", file=sys.stderr)
        return 0
    mine: list[float] = []
    used: list[float] = []
    rival: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        train = build(sample, Path(temporary) / "Train")
        for number in range(arguments.rounds):
            place = Path(temporary) / f"round{number}"
            wall, cpu = ours(train, place / "ours", arguments.workers)
            mine.append(wall)
            used.append(cpu)
            if arguments.rival_images:
                rival.append(published(train, place / "rival", arguments.rival_images))
            shutil.rmtree(place)
    result = {
        "leuko_ms_per_drawn_image": round(statistics.median(mine), 2),
        "leuko_cpu_ms_per_drawn_image": round(statistics.median(used), 2),
        "published_ms_per_drawn_image": round(statistics.median(rival), 2) if rival else None,
        "times_faster": round(statistics.median(rival) / statistics.median(mine), 1)
        if rival
        else None,
        "rounds": arguments.rounds,
        "each_ms": [round(value, 2) for value in mine],
        "published_each_ms": [round(value, 2) for value in rival],
        "workers": arguments.workers,
        "cores": worker_count(None),
        "load": round(os.getloadavg()[0], 2),
        "jpeg": f"quality {JpegStyle().quality}, {JpegStyle().subsampling}",
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print("\n".join(f"{key:<30} {value}" for key, value in result.items()))
    slow = arguments.limit is not None and statistics.median(mine) > arguments.limit
    return 1 if slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
