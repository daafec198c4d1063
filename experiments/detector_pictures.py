"""Pictures with boxes that `experiments/train_detector.py` learns from and is measured on.

    python experiments/detector_pictures.py DATA --sheet SHEETS

DATA holds ``chula-fields``, ``fields`` and ``pbc-240``. The command writes contact sheets of
``chula-fields``: boxes in green, and in red those of ``chula_unboxed.csv``, white cells that were
seen on such sheets and have no box. They are ignored in training and count neither way after it.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from scipy.sparse.csgraph import connected_components

from leuko.data.synth import SlideStyle, draw_field, draw_slide_style
from leuko.data.synth.kinds import KINDS
from leuko.errors import UsageError
from leuko.field.boxes import read_boxes
from leuko.imaging.decode import encode_png, read_image

UNBOXED = Path(__file__).with_name("chula_unboxed.csv")
DRAWN = 700
TRAINED, KEPT = -1, -2
ALIKE = 0.8


@dataclass(frozen=True)
class Picture:
    """A picture and its boxes, (n, 4) float32: row0, col0, row1, col1.

    `fold` is `TRAINED` for one that is always trained on, `KEPT` for one that never is. `red` is
    None where red cells have no boxes; `single` means a picture of one cell.
    """

    source: str
    path: Path
    fold: int
    white: np.ndarray
    red: np.ndarray | None = None
    ignored: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    single: bool = False

    @property
    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8, RGB, kept once it was read."""
        return _pixels(self.path)


@cache
def _pixels(path: Path) -> np.ndarray:
    return read_image(path).pixels


def read_pictures(data: Path, drawn: Path, folds: int) -> list[Picture]:
    """All four sources."""
    return [*chula(data, folds), *fields(data, folds), *single_cells(data), *drawn_fields(drawn)]


def chula(data: Path, folds: int) -> list[Picture]:
    """Fields of a cheap camera, the slides dealt into folds."""
    root = data / "chula-fields"
    table, unboxed = read_boxes(root), read_boxes(UNBOXED).by_picture
    paths = sorted(table.pictures)
    dealt = deal([table.pictures[path] for path in paths], folds)
    return [
        Picture(
            "chula", root / path, fold, _boxes([one.box for one in table.by_picture[path]]),
            ignored=_boxes([one.box for one in unboxed.get(path, ())]),
        )
        for path, fold in zip(paths, dealt, strict=True)
    ]  # fmt: skip


def fields(data: Path, folds: int) -> list[Picture]:
    """Fields with red cells boxed too, near-copies dealt into one fold."""
    paths = sorted((data / "fields" / "images").iterdir())
    dealt = deal(near_copies(paths), folds)
    found = []
    for path, fold in zip(paths, dealt, strict=True):
        height, width = _pixels(path).shape[:2]
        boxes: tuple[list, list, list] = ([], [], [])
        for line in (data / "fields" / "labels" / f"{path.stem}.txt").read_text().splitlines():
            kind, col, row, wide, tall = map(float, line.split())
            top, left = (row - tall / 2) * height, (col - wide / 2) * width
            bottom, right = (row + tall / 2) * height, (col + wide / 2) * width
            boxes[int(kind)].append((top, left, bottom, right))
        found.append(Picture("fields", path, fold, _boxes(boxes[0]), red=_boxes(boxes[1])))
    return found


def near_copies(paths: Sequence[Path]) -> list[int]:
    """The group of each picture; those that are alike, also turned or mirrored, have the same."""
    thumbnails = []
    for path in paths:
        grey = cv2.cvtColor(_pixels(path), cv2.COLOR_RGB2GRAY)
        small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(float)
        thumbnails.append((small - small.mean()) / (small.std() + 1e-6))
    plain = np.array(thumbnails)
    turned = [np.rot90(one, k, (1, 2)) for one in (plain, plain[:, :, ::-1]) for k in range(4)]
    flat = plain.reshape(len(plain), -1)
    alike = np.max([one.reshape(flat.shape) @ flat.T for one in turned], axis=0) / flat.shape[1]
    return connected_components(alike > ALIKE)[1].tolist()


def single_cells(data: Path) -> list[Picture]:
    """Cells of PBC; the val split is kept back."""
    root = data / "pbc-240"
    with open(root / "pbc.csv", newline="") as file:
        kept = {row["path"] for row in csv.DictReader(file) if row["split"] == "val"}
    return [
        Picture(
            "pbc", root / path, KEPT if path in kept else TRAINED,
            _boxes([one.box for one in boxes]), single=True,
        )
        for path, boxes in sorted(read_boxes(root).by_picture.items())
    ]  # fmt: skip


def drawn_fields(folder: Path) -> list[Picture]:
    """Drawn fields of every magnification, drawn where they are lacking; a tenth is kept back."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(DRAWN):
        path = folder / f"{number:05d}.jpg"
        table = path.with_suffix(".npz")
        if not table.exists():
            drawn = draw(np.random.default_rng([7, number]))
            pixels = cv2.cvtColor(drawn.pixels, cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
            np.savez(table, white=_boxes(drawn.boxes), red=_boxes(drawn.red_boxes))
        with np.load(table) as boxes:
            fold = KEPT if number % 10 == 9 else TRAINED
            found.append(Picture("drawn", path, fold, boxes["white"], red=boxes["red"]))
    return found


def draw(rng: np.random.Generator):
    """Draw a field; six of ten are of stranger stains and cameras than a laboratory would bear."""
    style = draw_slide_style(rng)
    if rng.random() < 0.6:
        style = strange(style, rng)
    scale = float(np.exp(rng.uniform(np.log(3), np.log(25))))
    height, width = ((480, 640), (600, 960), (768, 1024))[rng.integers(3)]
    most = max(0, min(14, int(height * width / scale**2 / 1200)))
    count = int(rng.integers(0, most + 1)) if rng.random() > 0.1 else 0
    kinds = [kind for kind in KINDS if kind != "Platelet"]
    while True:
        counts = Counter(rng.choice(kinds, count).tolist())
        try:
            return draw_field(
                counts or 0, rng, style, height=height, width=width,
                pixels_per_micrometre=scale, cut_share=0.2,
            )  # fmt: skip
        except UsageError:  # so many do not fit
            count //= 2


def strange(style: SlideStyle, rng: np.random.Generator) -> SlideStyle:
    """Another stain, smear and camera."""
    return replace(
        style,
        chromatin_strength=float(np.exp(rng.normal(0, 0.35))),
        eosin_strength=float(np.exp(rng.normal(0, 0.5))),
        azure_strength=float(np.exp(rng.normal(0, 0.5))),
        red_strength=float(np.exp(rng.normal(0, 0.45))),
        red_density=float(rng.uniform(0.02, 0.8)),
        blur=float(rng.uniform(0.1, 0.5)),
        noise=float(rng.uniform(0.5, 6)),
        platelet_density=float(rng.gamma(2, 1.0)),
        debris=float(rng.gamma(1, 1.0)),
        contrast=float(np.exp(rng.normal(0, 0.2))),
    )


def deal(groups: Sequence[Hashable], folds: int) -> list[int]:
    """The fold of each member: the largest group first, each into the emptiest fold."""
    sizes, load, fold_of = Counter(groups), [0] * folds, {}
    for group in sorted(sizes, key=lambda group: (-sizes[group], group)):
        fold_of[group] = load.index(min(load))
        load[fold_of[group]] += sizes[group]
    return [fold_of[group] for group in groups]


def _boxes(rows: Sequence[Sequence[float]]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def write_sheets(pictures: Sequence[Picture], folder: Path) -> None:
    """Fifteen to a sheet, with their boxes and file names."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(pictures), 15):
        tiles = []
        for picture in pictures[first : first + 15]:
            share = 520 / picture.pixels.shape[1]
            tile = cv2.resize(picture.pixels, None, fx=share, fy=share, interpolation=3)
            for boxes, colour in ((picture.white, (0, 200, 0)), (picture.ignored, (255, 0, 0))):
                for row0, col0, row1, col1 in (boxes * share).astype(int).tolist():
                    cv2.rectangle(tile, (col0, row0), (col1, row1), colour, 2)
            cv2.putText(tile, picture.path.name, (5, 15), 0, 0.45, (0, 0, 0), 1)
            tiles.append(tile)
        tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % 3)
        rows = [np.hstack(tiles[at : at + 3]) for at in range(0, len(tiles), 3)]
        (folder / f"{first:03d}.png").write_bytes(encode_png(np.vstack(rows)))


def main() -> None:
    """Write the sheets."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--sheet", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    write_sheets(chula(arguments.data, 2), arguments.sheet)


if __name__ == "__main__":
    main()
