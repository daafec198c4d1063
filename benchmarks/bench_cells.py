"""Measure the cell finder: Dice against exact and experts' masks, milliseconds a crop.

Drawn smears are always measured; with the environment variable LEUKO_DATA (a folder that holds
``masks/NAME`` and ``NAME/CLASS``), its laboratories as well. Times are process time in one thread,
the median over pictures, and the tenth percentile, which a busy machine disturbs less.

    python benchmarks/bench_cells.py [--drawn 100] [--seed 7] [--sensitivity]

``--sensitivity`` moves each hand-set constant down and up by a quarter and prints what that does
to the mean Dice of nucleus and cell.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from leuko.cells import canonical_crop, colour, find_cell, nucleus, segment
from leuko.cells.colour import reduce_picture
from leuko.data.synth import draw_cell, draw_slide_style
from leuko.imaging.decode import decode_image, encode_jpeg, read_image
from leuko.imaging.preprocess import PreprocessSpec
from leuko.scheme import load_scheme
from leuko.support.host import machine

CLASSES = load_scheme("differential-5").names

LABORATORIES = ("cellavision", "jtsc")
SIZES = (120, 200, 288, 288, 400, 575)
CONSTANTS = (
    (colour, "FLARE"),
    (nucleus, "CENTRAL"),
    (nucleus, "OUTSKIRTS"),
    (nucleus, "LOBE_GAP"),
    (nucleus, "WHOLE"),
    (nucleus, "LOBE_SMALLEST"),
    (nucleus, "LOBE_LARGEST"),
    (nucleus, "RIM"),
    (nucleus, "LEAST"),
    (nucleus, "TWO_LEVELS"),
    (nucleus, "VALLEY"),
    (nucleus, "FAR_APART"),
    (segment, "CHROMATIN"),
    (segment, "REACH"),
    (segment, "FREE"),
    (segment, "DRIFT"),
    (segment, "STAINED"),
    (segment, "SOFT"),
    (segment, "NEAR"),
    (segment, "CLOTHED"),
    (segment, "RING"),
    (segment, "BARE"),
    (segment, "FAR"),
    (segment, "PALE"),
    (segment, "BULGE"),
)


class Known(NamedTuple):
    """A picture whose masks are known."""

    label: str
    pixels: np.ndarray
    nucleus: np.ndarray
    cell: np.ndarray


def draw(count: int, seed: int) -> list[Known]:
    """Drawn cells of all classes and sizes, as JPEG."""
    known = []
    for index in range(count):
        style = draw_slide_style(np.random.default_rng([seed, index]))
        name, size = CLASSES[index % 5], SIZES[index % len(SIZES)]
        cell = draw_cell(name, np.random.default_rng([seed, index, 1]), style, size=size)
        data = encode_jpeg(
            cell.pixels, quality=style.jpeg_quality, subsampling=style.jpeg_subsampling
        )
        known.append(Known(name, decode_image(data).pixels, cell.nucleus, cell.cell))
    return known


def read(root: Path, name: str) -> list[Known]:
    """Pictures of a laboratory with masks by experts."""
    known = []
    for file in sorted((root / name).glob("*/*")):
        mask = cv2.imread(str(root / "masks" / name / f"{file.stem}.png"), cv2.IMREAD_GRAYSCALE)
        pixels = read_image(file).pixels
        known.append(Known(file.parent.name, pixels, mask > 200, mask > 64))
    return known


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Twice the common area over the sum of areas."""
    total = int(first.sum()) + int(second.sum())
    return 2.0 * int((first & second).sum()) / total if total else 1.0


def score(known: list[Known]) -> tuple[dict[str, list[tuple[float, float]]], int, int]:
    """Dice of nucleus and cell by class; how many centres miss the cell; how many were missed."""
    by_class: dict[str, list[tuple[float, float]]] = defaultdict(list)
    astray = missed = 0
    for one in known:
        found = find_cell(one.pixels)
        by_class[one.label].append(
            (dice(found.full_mask("nucleus"), one.nucleus), dice(found.full_mask(), one.cell))
        )
        centres = (found.nucleus_centre, found.cell_centre)
        row, column = (int((a + b) / 2) for a, b in zip(*centres, strict=True))
        astray += not one.cell[row, column]
        missed += not found.found
    return by_class, astray, missed


def table(sets: dict[str, list[Known]]) -> None:
    """Print Dice by set and class."""
    print("| set | class | n | nucleus | 5th percentile | cell | 5th percentile |")
    print("|---|---|---|---|---|---|---|")
    for name, known in sets.items():
        by_class, astray, missed = score(known)
        rows = {"all": [pair for pairs in by_class.values() for pair in pairs], **by_class}
        for label, pairs in rows.items():
            values = np.array(pairs)
            low = np.percentile(values, 5, axis=0)
            mean = values.mean(axis=0)
            print(
                f"| {name} | {label} | {len(values)} | {mean[0]:.3f} | {low[0]:.2f} "
                f"| {mean[1]:.3f} | {low[1]:.2f} |"
            )
        print(f"{name}: centre of the crop off the cell {astray}, nothing found {missed}")


def times(name: str, known: list[Known]) -> None:
    """Print milliseconds a crop."""
    spec = PreprocessSpec((128, 128), view="cell", width=22.0)
    spent: dict[str, list[float]] = defaultdict(list)
    for round_number in range(4):
        for one in known:
            started = [time.process_time_ns()]
            small = reduce_picture(one.pixels)[0]
            started.append(time.process_time_ns())
            find_cell(small)
            started.append(time.process_time_ns())
            if round_number:
                spent["reduce"].append(started[1] - started[0])
                spent["find"].append(started[2] - started[1])
            found = find_cell(one.pixels)
            begin = time.process_time_ns()
            canonical_crop(one.pixels, found, spec)
            if round_number:
                spent["crop to 128 px"].append(time.process_time_ns() - begin)
    said = ", ".join(
        f"{what} {np.median(values) / 1e6:.2f} (tenth percentile "
        f"{np.percentile(values, 10) / 1e6:.2f})"
        for what, values in spent.items()
    )
    print(f"{name}: milliseconds a picture: {said}")


def sensitivity(sets: dict[str, list[Known]]) -> None:
    """Print what a quarter less and more of each constant does."""

    def means() -> list[tuple[float, float]]:
        said = []
        for known in sets.values():
            pairs = [pair for pairs in score(known)[0].values() for pair in pairs]
            nuclei, cells = np.mean(pairs, axis=0)
            said.append((float(nuclei), float(cells)))
        return said

    def text(values: list[tuple[float, float]]) -> str:
        return " | ".join(f"{nuclei:.3f} / {cells:.3f}" for nuclei, cells in values)

    print("| constant | " + " | ".join(f"{name}: nucleus / cell" for name in sets) + " |")
    print("|---|" + "---|" * len(sets))
    print(f"| as set | {text(means())} |")
    for module, name in CONSTANTS:
        value = getattr(module, name)
        for factor in (0.75, 1.25):
            setattr(module, name, type(value)(value * factor))
            if name == "FLARE":
                colour._DENSITY[:] = -np.log10(
                    (np.arange(256) + colour.FLARE) / (255.0 + colour.FLARE)
                )
            print(f"| {name} {float(value):g} to {float(value) * factor:g} | {text(means())} |")
        setattr(module, name, value)
        if name == "FLARE":
            colour._DENSITY[:] = -np.log10((np.arange(256) + value) / (255.0 + value))


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--drawn", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--sensitivity", action="store_true")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    sets = {"drawn": draw(arguments.drawn, arguments.seed)}
    root = Path(os.environ.get("LEUKO_DATA", "") or "nowhere")
    for name in LABORATORIES:
        if (root / "masks" / name).is_dir():
            sets[name] = read(root, name)
    if arguments.sensitivity:
        sensitivity(sets)
        return
    table(sets)
    print(machine())
    for name, known in sets.items():
        times(name, known)


if __name__ == "__main__":
    main()
