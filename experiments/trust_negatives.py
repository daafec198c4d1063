"""Pictures that hold no white cell, for `experiments/trust_refusals.py`.

Two halves that share no image: ``develop`` was looked at while methods and settings were chosen,
``held`` only measures. Kinds named in `UNSEEN` stand in ``held`` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from leuko.data.synth import draw_field, draw_slide_style
from leuko.errors import LeukoError
from leuko.imaging.decode import IMAGE_SUFFIXES, read_image

Pixels = npt.NDArray[np.uint8]

HALVES = ("develop", "held")
UNSEEN = ("checkers", "printed text", "plot")
WORDS = [
    "the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "0123456789", "patient",
    "name", "date", "laboratory", "number", "differential", "report", "neutrophil", "lymphocyte",
]  # fmt: skip


@dataclass(frozen=True)
class Negative:
    """One picture without a white cell."""

    half: str
    kind: str
    pixels: Pixels


def negatives(data: Path, pictures: Path | None = None) -> Iterator[Negative]:
    """Everything: drawn, cut out of fields and of Raabin-WBC's corners, photographs, text."""
    yield from drawn_smears()
    yield from field_crops(data / "fields")
    for half, folder, seed in (("develop", "Train", 1), ("held", "Test", 2)):
        yield from corners(data / "raabin-wbc-288" / folder, half, seed)
    yield from plain_pictures()
    yield from texts()
    yield from photographs(pictures)
    yield from plots()


def drawn_smears() -> Iterator[Negative]:
    """Red cells and platelets of `leuko.data.synth`, at many scales."""
    for half, first, count in (("develop", 1000, 80), ("held", 9000, 120)):
        for number in range(first, first + count):
            rng = np.random.default_rng(number)
            style = draw_slide_style(rng)
            side, width = int(rng.choice([96, 200, 288, 400])), rng.uniform(15, 45)
            scale = float(np.clip(side / width, 1, 40))
            field = draw_field(0, rng, style, height=side, width=side, pixels_per_micrometre=scale)
            yield Negative(half, "drawn smear", field.pixels)


def field_crops(folder: Path) -> Iterator[Negative]:
    """Crops that touch no white cell's box: at a cell's scale, and tight round one red cell or
    platelet."""
    rng = np.random.default_rng(5)
    for number, path in enumerate(sorted((folder / "images").iterdir())):
        half, pixels = HALVES[(number + 1) % 2], read_image(path).pixels
        boxes = _boxes(folder / "labels" / f"{path.stem}.txt", pixels.shape)
        white, red, small = (boxes[boxes[:, 0] == kind, 1:] for kind in range(3))
        across = float(np.median((red[:, 2:] - red[:, :2]).max(axis=1))) if len(red) else 60.0
        found = 0
        for _ in range(60):
            side = int(across * rng.uniform(1.5, 4.5))
            if found == 3 or not 24 <= side <= min(pixels.shape[:2]):
                continue
            row, column = (int(rng.integers(0, n - side + 1)) for n in pixels.shape[:2])
            crop = _clear(pixels, white, row, column, side)
            if crop is not None:
                found += 1
                yield Negative(half, "field crop", crop)
        for kind, some, least, most in (
            ("one red cell", red[rng.permutation(len(red))[:1]], 1.05, 1.6),
            ("platelet", small[:3], 3.0, 6.0),
            ("one platelet", small[:3], 1.2, 2.0),
        ):
            for top, left, bottom, right in some:
                side = int(max(bottom - top, right - left) * rng.uniform(least, most))
                middle = ((top + bottom - side) / 2, (left + right - side) / 2)
                crop = _clear(pixels, white, int(middle[0]), int(middle[1]), side)
                if crop is not None and side >= 20:
                    yield Negative(half, kind, crop)


def corners(folder: Path, half: str, seed: int) -> Iterator[Negative]:
    """Corners of single-cell pictures, which show red cells."""
    rng = np.random.default_rng(seed)
    files = sorted(folder.glob("*/*.jpg"))
    for index in rng.choice(len(files), 200, replace=False):
        pixels = read_image(files[index]).pixels
        side = int(rng.uniform(0.24, 0.31) * min(pixels.shape[:2]))
        rows = slice(0, side) if rng.random() < 0.5 else slice(-side, None)
        columns = slice(0, side) if rng.random() < 0.5 else slice(-side, None)
        yield Negative(half, "corner", np.ascontiguousarray(pixels[rows, columns]))


def plain_pictures() -> Iterator[Negative]:
    """One colour, gradients, noise, and checkers."""
    rng = np.random.default_rng(6)
    rows, columns = np.mgrid[0:240, 0:240] / 240
    for number in range(40):
        half = HALVES[number % 2]
        one, other = rng.integers(0, 256, (2, 3))
        noise = rng.normal(0, rng.choice([0.0, 1.0, 5.0]), (240, 240, 3))
        yield Negative(half, "blank", _bytes(one + noise))
        turn = rng.uniform(0, 2 * np.pi)
        share = (np.cos(turn) * (rows - 0.5) + np.sin(turn) * (columns - 0.5) + 0.5).clip(0, 1)
        yield Negative(half, "gradient", _bytes(one + (other - one) * share[..., None]))
        side = int(rng.choice([8, 30, 240]))
        grain = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
        large = cv2.resize(grain, (240, 240), interpolation=int(rng.integers(0, 2)))
        yield Negative(half, "noise", np.asarray(large, np.uint8))
        if half == "held":
            many = rng.integers(2, 20)
            squares = ((rows * many).astype(int) + (columns * many).astype(int)) % 2
            yield Negative(half, "checkers", _bytes(np.where(squares[..., None], one, other)))


def texts() -> Iterator[Negative]:
    """Pages of text, stroked and printed."""
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(7)
    for number in range(40):
        ink = (0, 0, 0) if number % 4 else tuple(int(v) for v in rng.integers(0, 120, 3))
        paper = (255, 255, 255) if number % 3 else tuple(int(v) for v in rng.integers(180, 256, 3))
        page, scale = np.full((400, 400, 3), paper, np.uint8), rng.uniform(0.4, 2.5)
        for row in range(20, 400, int(30 * scale)):
            font, width = int(rng.choice([0, 2, 3, 4, 5])), int(rng.integers(1, 4))
            line = " ".join(rng.choice(WORDS, 12))
            cv2.putText(page, line, (5, row), font, scale, ink, width)
        yield Negative(HALVES[number % 2], "text", page)
        if number % 2:
            sheet = Image.new("RGB", (500, 500), (255, 255, 250))
            size = int(rng.integers(9, 70))
            font_of_pillow = ImageFont.load_default(size=size)
            for row in range(0, 500, int(size * 1.3)):
                line = " ".join(rng.choice(WORDS, 14))
                ImageDraw.Draw(sheet).text((4, row), line, fill=ink, font=font_of_pillow)
            yield Negative("held", "printed text", np.array(sheet))


def photographs(pictures: Path | None) -> Iterator[Negative]:
    """Sample photographs of scikit-learn and Matplotlib, and any folder; whole and in parts."""
    import matplotlib as mpl
    import sklearn.datasets

    samples = Path(sklearn.datasets.__file__).parent / "images"
    files = [("develop", samples / "china.jpg"), ("held", samples / "flower.jpg")]
    files.append(("held", Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"))
    if pictures is not None:
        found = sorted(path for path in pictures.iterdir() if path.suffix in IMAGE_SUFFIXES)
        files += [(HALVES[number % 2], path) for number, path in enumerate(found)]
    rng = np.random.default_rng(8)
    for half, path in files:
        try:
            pixels = read_image(path).pixels
        except LeukoError:
            continue
        yield Negative(half, "photograph", pixels)
        for _ in range(20):
            side = max(32, int(rng.uniform(0.15, 0.9) * min(pixels.shape[:2])))
            row, column = (int(rng.integers(0, n - side + 1)) for n in pixels.shape[:2])
            crop = pixels[row : row + side, column : column + side]
            yield Negative(half, "photograph", np.ascontiguousarray(crop))


def plots() -> Iterator[Negative]:
    """Curves, clouds of points and coloured squares."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rng = np.random.default_rng(9)
    for number in range(24):
        figure = plt.figure(figsize=(4, 4), dpi=80)
        axes = figure.add_subplot()
        if number % 3 == 0:
            axes.plot(rng.normal(size=(50, 3)).cumsum(axis=0))
        elif number % 3 == 1:
            axes.scatter(*rng.normal(size=(2, 200)), s=rng.uniform(5, 200, 200), c=rng.random(200))
        else:
            axes.imshow(rng.random((8, 8)), cmap=str(rng.choice(["viridis", "Purples"])))
        figure.canvas.draw()
        canvas: Any = figure.canvas
        yield Negative("held", "plot", np.array(canvas.buffer_rgba())[..., :3].copy())
        plt.close(figure)


def _boxes(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """YOLO boxes as (kind, top, left, bottom, right) in pixels."""
    rows = [[float(value) for value in line.split()] for line in path.read_text().splitlines()]
    kind, column, row, width, height = np.array(rows).reshape(-1, 5).T
    half = np.array([row - height / 2, column - width / 2, row + height / 2, column + width / 2])
    scale = np.array([shape[0], shape[1]] * 2)[:, None]
    return np.column_stack([kind, (half * scale).T])


def _clear(
    pixels: Pixels, white: npt.NDArray[np.float64], row: int, column: int, side: int
) -> Pixels | None:
    """Cut a square out, if it lies inside and no white cell touches it."""
    rows, columns = pixels.shape[:2]
    inside = row >= 0 and column >= 0 and row + side <= rows and column + side <= columns
    touched = (
        (white[:, 0] < row + side)
        & (white[:, 2] > row)
        & (white[:, 1] < column + side)
        & (white[:, 3] > column)
    )
    if not inside or touched.any():
        return None
    return np.ascontiguousarray(pixels[row : row + side, column : column + side])


def _bytes(values: npt.NDArray[np.float64]) -> Pixels:
    """Round to what a picture holds."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
