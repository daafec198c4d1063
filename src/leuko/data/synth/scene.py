"""Put drawn cells on a slide and look at it through a microscope and a camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.data.synth.blood import Patch, paint_platelet, paint_red_cell
from leuko.data.synth.kinds import KINDS, REACH, paint_cell
from leuko.data.synth.shapes import Image, grain, texture
from leuko.data.synth.style import SlideStyle
from leuko.errors import UsageError

__all__ = ["Box", "DrawnCell", "DrawnField", "draw_cell", "draw_field"]

Box = tuple[int, int, int, int]
"""(row0, col0, row1, col1), half-open, in pixels."""

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_CROP_WIDTH: Final = 28.8  # micrometres across a single-cell crop, as in Raabin-WBC
_DIFFERENTIAL: Final = {
    "Basophil": 0.01,
    "Eosinophil": 0.05,
    "Lymphocyte": 0.30,
    "Monocyte": 0.08,
    "Neutrophil": 0.56,
}  # a healthy adult's


@dataclass(frozen=True, slots=True)
class DrawnCell:
    """A picture of one white cell, with everything that is known about it.

    Attributes
    ----------
    pixels : (H, W, 3) uint8
        RGB, before JPEG.
    nucleus : (H, W) bool
        The nucleus.
    cell : (H, W) bool
        The whole white cell, nucleus included.
    box : tuple of 4 ints
        Bounding box of ``cell``: (row0, col0, row1, col1), half-open.
    label : str
        One of `leuko.data.synth.kinds.KINDS`.
    lobes : int
        Lobes of the nucleus as drawn.
    """

    pixels: Pixels
    nucleus: Mask
    cell: Mask
    box: Box
    label: str
    lobes: int


@dataclass(frozen=True, slots=True)
class DrawnField:
    """A picture of a whole field of view, with everything that is known about it.

    Attributes
    ----------
    pixels : (H, W, 3) uint8
        RGB, before JPEG.
    boxes : tuple of boxes
        Bounding boxes of the white cells: (row0, col0, row1, col1), half-open, cut at the
        border of the field.
    labels : tuple of str
        Class of each white cell, in the order of ``boxes``.
    nucleus, cell : (H, W) bool
        All nuclei; all white cells, nuclei included.
    instances : (H, W) int32
        0 outside white cells; ``k + 1`` on the white cell of ``boxes[k]``.
    red_boxes, platelet_boxes : tuple of boxes
        Bounding boxes of red cells and of platelets, cut at the border.
    """

    pixels: Pixels
    boxes: tuple[Box, ...]
    labels: tuple[str, ...]
    nucleus: Mask
    cell: Mask
    instances: npt.NDArray[np.int32]
    red_boxes: tuple[Box, ...]
    platelet_boxes: tuple[Box, ...]


def draw_cell(
    class_name: str, rng: np.random.Generator, style: SlideStyle, *, size: int = 288
) -> DrawnCell:
    """Draw one white cell among red cells, as the crops of Raabin-WBC show it.

    Parameters
    ----------
    class_name : str
        One of `leuko.data.synth.kinds.KINDS`.
    rng : numpy.random.Generator
        Source of randomness: the same state gives the same picture.
    style : SlideStyle
        The slide; see `draw_slide_style`.
    size : int
        Height and width in pixels, at least 32. The crop always shows 28.8 micrometres, so
        that the cell takes about two fifths of the width.

    Returns
    -------
    DrawnCell
        Picture, masks, box and label.

    Raises
    ------
    UsageError
        When the class is unknown or the size too small.

    Examples
    --------
    >>> from leuko.data.synth import draw_slide_style
    >>> style = draw_slide_style(np.random.default_rng(1))
    >>> cell = draw_cell("Monocyte", np.random.default_rng(2), style, size=96)
    >>> cell.pixels.shape, cell.label, bool((cell.nucleus & ~cell.cell).any())
    ((96, 96, 3), 'Monocyte', False)
    """
    _check_class(class_name)
    _check_side("size", size)
    scale = size / _CROP_WIDTH
    shift = rng.uniform(-0.5, 0.5, 2)
    patch = paint_cell(class_name, rng, style, scale, (shift[0], shift[1]))
    jitter = rng.normal(0.0, 0.35 * scale, 2)
    box = _bounds(patch.cell)
    top = round(size / 2 + jitter[0] - (box[0] + box[2]) / 2)
    left = round(size / 2 + jitter[1] - (box[1] + box[3]) / 2)
    scene = _Scene((size, size), scale, style)
    middle = patch.cell.shape[0] / 2
    reach = np.sqrt(float(patch.cell.sum()) / np.pi) / scale
    places = [((top + middle) / scale, (left + middle) / scale, reach)]
    scene.scatter_red_cells(rng, places)
    scene.scatter_platelets(rng, places)
    nucleus, cell = scene.put_white(patch, top, left)
    pixels = scene.photograph(rng)
    return DrawnCell(pixels, nucleus, cell, _bounds(cell), class_name, patch.lobes)


def draw_field(
    counts: Mapping[str, int] | int | None,
    rng: np.random.Generator,
    style: SlideStyle,
    *,
    height: int = 768,
    width: int = 1024,
    pixels_per_micrometre: float = 9.0,
    cut_share: float = 0.08,
) -> DrawnField:
    """Draw a field of view with several white cells.

    Parameters
    ----------
    counts : mapping of str to int, int, or None
        White cells of each class; or how many in all, their classes drawn from a healthy
        adult's differential; or None for three to seven.
    rng : numpy.random.Generator
        Source of randomness.
    style : SlideStyle
        The slide.
    height, width : int
        Size of the picture in pixels, at least 32 each.
    pixels_per_micrometre : float
        Magnification; a red cell measures about 7.5 micrometres across.
    cut_share : float
        Share of white cells that the border may cut, 0 to 1.

    Returns
    -------
    DrawnField
        Picture, boxes, masks and the instance map.

    Raises
    ------
    UsageError
        When a class is unknown, a count negative, or the field too small for the white cells.
    """
    _check_side("height", height)
    _check_side("width", width)
    if not 1.0 <= pixels_per_micrometre <= 40.0:
        raise UsageError(
            f"pixels_per_micrometre must lie between 1 and 40; received {pixels_per_micrometre}."
        )
    names = _names(counts, rng)
    scale = pixels_per_micrometre
    scene = _Scene((height, width), scale, style)
    places = _place_white(names, rng, height / scale, width / scale, cut_share)
    patches: list[tuple[Patch, int, int]] = []
    exclusions = []
    for name, (row, col) in zip(names, places, strict=True):
        patch = paint_cell(name, rng, style, scale)
        half = patch.cell.shape[0] // 2
        patches.append((patch, round(row * scale) - half, round(col * scale) - half))
        exclusions.append((row, col, np.sqrt(float(patch.cell.sum()) / np.pi) / scale))
    red_boxes = scene.scatter_red_cells(rng, exclusions)
    platelet_boxes = scene.scatter_platelets(rng, exclusions)
    instances = np.zeros((height, width), dtype=np.int32)
    nuclei = np.zeros((height, width), dtype=np.bool_)
    kept: list[tuple[str, int]] = []
    for number, (name, (patch, top, left)) in enumerate(zip(names, patches, strict=True), 1):
        nucleus, cell = scene.put_white(patch, top, left, instances > 0)
        instances[cell] = number
        nuclei |= nucleus
        if cell.any():
            kept.append((name, number))
    boxes = tuple(_bounds(instances == number) for _, number in kept)
    labels = tuple(name for name, _ in kept)
    for order, (_, number) in enumerate(kept, 1):
        if order != number:
            instances[instances == number] = order
    pixels = scene.photograph(rng)
    return DrawnField(
        pixels, boxes, labels, nuclei, instances > 0, instances, red_boxes, platelet_boxes
    )


class _Scene:
    """Optical density that piles up on a slide, and the camera above it."""

    def __init__(self, shape: tuple[int, int], scale: float, style: SlideStyle) -> None:
        self.shape = shape
        self.scale = scale
        self.style = style
        self.density = np.zeros((*shape, 3), dtype=np.float32)

    def scatter_red_cells(
        self, rng: np.random.Generator, white: Sequence[tuple[float, float, float]]
    ) -> tuple[Box, ...]:
        """Strew red cells round the white ones (row, column, radius in micrometres)."""
        style, scale = self.style, self.scale
        radius = style.red_radius
        tall, wide = self.shape[0] / scale, self.shape[1] / scale
        margin = 0.8 * radius
        area = (tall + 2 * margin) * (wide + 2 * margin)
        local = float(np.clip(style.red_density * np.exp(rng.normal(0.0, 0.18)), 0.12, 0.75))
        # Cells that overlap cover less than the sum of their areas.
        wanted = round(local * (1.0 + 0.35 * style.red_overlap) * area / (np.pi * radius**2))
        tries = 7 * wanted
        rows = rng.uniform(-margin, tall + margin, tries)
        cols = rng.uniform(-margin, wide + margin, tries)
        sizes = radius * rng.normal(1.0, 0.065, tries).clip(0.78, 1.25)
        closeness = np.where(
            rng.random(tries) < style.red_overlap, rng.uniform(0.45, 0.95, tries), 0.98
        )
        pressing = rng.uniform(0.62, 1.05, tries)
        blocked = np.zeros(tries, dtype=np.bool_)
        for row, col, reach in white:
            blocked |= np.hypot(rows - row, cols - col) < reach + sizes * pressing
        places: list[tuple[float, float, float]] = []
        for index in range(tries):
            if blocked[index]:
                continue
            if len(places) == wanted:
                break
            row, col, size = float(rows[index]), float(cols[index]), float(sizes[index])
            places.append((row, col, size))
            down, across = rows - row, cols - col
            room = closeness * (sizes + size)
            blocked |= down * down + across * across < room * room
        amount = np.zeros(self.shape, dtype=np.float32)
        boxes = []
        for row, col, size in places:
            box = self._add_red_cell(rng, amount, row, col, size)
            if box is not None:
                boxes.append(box)
        # Two cells that overlap are flatter there than each alone.
        single = np.float32(0.30 * style.red_strength)
        amount -= np.float32(0.58) * np.maximum(amount - single, 0.0)
        self.density += amount[..., None] * np.array(style.haemoglobin, dtype=np.float32)
        return tuple(boxes)

    def _add_red_cell(
        self, rng: np.random.Generator, amount: Image, row: float, col: float, size: float
    ) -> Box | None:
        """Add one red cell, of which only the visible part is computed; return its box."""
        scale, reach = self.scale, 1.3 * size
        row0, col0 = (max(int((place - reach) * scale), 0) for place in (row, col))
        row1 = min(int(np.ceil((row + reach) * scale)), self.shape[0])
        col1 = min(int(np.ceil((col + reach) * scale)), self.shape[1])
        if row1 <= row0 or col1 <= col0:
            return None
        rows = ((np.arange(row0, row1) + 0.5) / scale - row).astype(np.float32)[:, None]
        cols = ((np.arange(col0, col1) + 0.5) / scale - col).astype(np.float32)[None, :]
        more, cell = paint_red_cell(rng, self.style, rows, cols, size)
        amount[row0:row1, col0:col1] += more
        if cell.sum() < 0.04 * np.pi * (size * scale) ** 2:
            return None
        box = _bounds(cell)
        return (box[0] + row0, box[1] + col0, box[2] + row0, box[3] + col0)

    def scatter_platelets(
        self, rng: np.random.Generator, white: Sequence[tuple[float, float, float]]
    ) -> tuple[Box, ...]:
        """Strew platelets, and specks of dye, clear of the white cells."""
        style, scale = self.style, self.scale
        tall, wide = self.shape[0] / scale, self.shape[1] / scale
        count = int(rng.poisson(style.platelet_density * tall * wide / 1000.0))
        others = np.array(white, dtype=np.float64).reshape(-1, 3)
        boxes = []
        for tries in rng.uniform(0.0, 1.0, (count, 4, 2)) * [tall, wide]:
            # Of four places the emptiest: platelets lie between red cells more often than on them.
            seen = [self.density[int(r * scale), int(c * scale), 1] for r, c in tries]
            row, col = tries[int(np.argmin(seen))]
            if (np.hypot(others[:, 0] - row, others[:, 1] - col) < others[:, 2] + 2.2).any():
                continue
            patch = paint_platelet(rng, style, scale)
            half = patch.cell.shape[0] // 2
            box = self._add(patch, round(row * scale) - half, round(col * scale) - half)
            if box is not None:
                boxes.append(box)
        specks = int(rng.poisson(style.debris * tall * wide / 1000.0))
        for row, col in rng.uniform(0.0, 1.0, (specks, 2)) * [tall, wide]:
            self._speck(rng, row * scale, col * scale)
        return tuple(boxes)

    def put_white(
        self, patch: Patch, top: int, left: int, taken: Mask | None = None
    ) -> tuple[Mask, Mask]:
        """Lay a white cell on the slide; red cells under it are pushed aside."""
        nucleus = np.zeros(self.shape, dtype=np.bool_)
        cell = np.zeros(self.shape, dtype=np.bool_)
        cut = _overlap(self.shape, patch.cell.shape, top, left)
        if cut is None:
            return nucleus, cell
        here, there = cut
        alpha = patch.alpha[there]
        density = patch.density[there]
        if taken is not None:
            free = ~taken[here]
            alpha, density = alpha * free, density * free[..., None]
        target = self.density[here]
        target *= (np.float32(1.0) - np.float32(0.96) * alpha)[..., None]
        target += density
        cell[here] = patch.cell[there]
        nucleus[here] = patch.nucleus[there]
        if taken is not None:
            cell &= ~taken
            nucleus &= ~taken
        return nucleus, cell

    def photograph(self, rng: np.random.Generator) -> Pixels:
        """Light, lens and sensor: optical density in, 8-bit RGB out."""
        style, scale = self.style, self.scale
        height, width = self.shape
        lamp = np.log(np.array(style.illuminant, dtype=np.float32))
        shade = np.float32(0.012) * texture(rng, self.shape, 7.0 * scale)
        rows = (np.arange(height, dtype=np.float32) - height / 2) / np.float32(100.0 * scale)
        cols = (np.arange(width, dtype=np.float32) - width / 2) / np.float32(100.0 * scale)
        shade += np.float32(style.gradient[0]) * rows[:, None]
        shade += np.float32(style.gradient[1]) * cols[None, :]
        light = self.density
        light *= np.float32(-np.log(10.0) * style.contrast)
        light += lamp
        light += shade[..., None]
        light = np.asarray(cv2.exp(light), dtype=np.float32)
        focus = style.blur * float(np.exp(rng.normal(0.0, 0.15))) * scale
        if focus > 0.25:
            light = np.asarray(cv2.GaussianBlur(light, (0, 0), focus), dtype=np.float32)
        if style.sharpening > 0.04:
            soft = cv2.GaussianBlur(light, (0, 0), max(0.22 * scale, 0.6))
            light = np.asarray(
                cv2.addWeighted(light, 1.0 + style.sharpening, soft, -style.sharpening, 0.0),
                dtype=np.float32,
            )
        slip = style.aberration * scale
        if slip > 0.15:
            for channel, sign in ((0, 1.0), (2, -1.0)):
                move = np.array([[1.0, 0.0, 0.7 * sign * slip], [0.0, 1.0, 0.7 * sign * slip]])
                light[..., channel] = cv2.warpAffine(
                    np.ascontiguousarray(light[..., channel]), move, (width, height),
                    borderMode=cv2.BORDER_REPLICATE,
                )  # fmt: skip
        speckle = grain(rng, self.shape)
        return np.asarray(
            cv2.addWeighted(light, 1.0, speckle, style.noise, 0.0, dtype=cv2.CV_8U), dtype=np.uint8
        )

    def _add(self, patch: Patch, top: int, left: int) -> Box | None:
        """Add a patch's density; return the box of what is visible of it."""
        cut = _overlap(self.shape, patch.cell.shape, top, left)
        if cut is None:
            return None
        here, there = cut
        self.density[here] += patch.density[there]
        visible = patch.cell[there]
        if visible.sum() < max(4.0, 0.04 * patch.cell.sum()):
            return None
        box = _bounds(visible)
        row, col = here[0].start, here[1].start
        return (box[0] + row, box[1] + col, box[2] + row, box[3] + col)

    def _speck(self, rng: np.random.Generator, row: float, col: float) -> None:
        """One small dark speck of dye or dust."""
        radius = rng.uniform(0.12, 0.4) * self.scale
        reach = int(np.ceil(2 * radius)) + 1
        axis = np.arange(-reach, reach + 1, dtype=np.float32)
        spot = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / np.float32(radius**2))
        colour = np.array(self.style.chromatin, dtype=np.float32) * rng.uniform(0.15, 0.6)
        cut = _overlap(self.shape, spot.shape, round(row) - reach, round(col) - reach)
        if cut is not None:
            here, there = cut
            self.density[here] += spot[there][..., None] * colour.astype(np.float32)


def _overlap(
    shape: tuple[int, int], patch: tuple[int, ...], top: int, left: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Where a patch and a picture meet, as slices of the picture and of the patch."""
    row0, col0 = max(top, 0), max(left, 0)
    row1, col1 = min(top + patch[0], shape[0]), min(left + patch[1], shape[1])
    if row1 <= row0 or col1 <= col0:
        return None
    return (
        (slice(row0, row1), slice(col0, col1)),
        (slice(row0 - top, row1 - top), slice(col0 - left, col1 - left)),
    )


def _bounds(mask: Mask) -> Box:
    """Half-open bounding box of a mask that is not empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    cols = np.flatnonzero(mask.any(axis=0))
    return (int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1)


def _names(counts: Mapping[str, int] | int | None, rng: np.random.Generator) -> list[str]:
    """Classes of the white cells of a field, in random order."""
    if isinstance(counts, Mapping):
        for name, count in counts.items():
            _check_class(name)
            if count < 0:
                raise UsageError(f"The count of {name} must not be negative; received {count}.")
        names = [name for name in KINDS for _ in range(counts.get(name, 0))]
        return [names[index] for index in rng.permutation(len(names))]
    total = int(rng.integers(3, 8)) if counts is None else counts
    if total < 0:
        raise UsageError(f"The number of white cells must not be negative; received {total}.")
    kinds, shares = [*_DIFFERENTIAL], [*_DIFFERENTIAL.values()]
    return [kinds[index] for index in rng.choice(len(kinds), size=total, p=shares)]


def _place_white(
    names: Sequence[str], rng: np.random.Generator, tall: float, wide: float, cut_share: float
) -> list[tuple[float, float]]:
    """Centres (row, column) in micrometres that leave every white cell its room."""
    places: list[tuple[float, float]] = []
    for order, name in enumerate(names):
        reach = REACH[name]
        cut = rng.random() < cut_share
        edge = 0.35 * reach if cut else 1.25 * reach
        if 2 * edge >= min(tall, wide):
            raise UsageError(
                f"A field of {tall:.0f} x {wide:.0f} micrometres is too small for a "
                f"{name.lower()}; draw a larger field or use fewer pixels per micrometre."
            )
        for _ in range(400):
            row, col = rng.uniform(edge, tall - edge), rng.uniform(edge, wide - edge)
            if all(
                np.hypot(row - other[0], col - other[1]) > 1.05 * (reach + REACH[names[which]])
                for which, other in enumerate(places)
            ):
                places.append((float(row), float(col)))
                break
        else:
            raise UsageError(
                f"{len(names)} white cells do not fit into a field of {tall:.0f} x {wide:.0f} "
                f"micrometres (room was found for {order}); ask for fewer, or a larger field."
            )
    return places


def _check_class(name: str) -> None:
    """Refuse a class that is not drawn."""
    if name not in KINDS:
        raise UsageError(f"No {name!r} can be drawn; expected one of {', '.join(KINDS)}.")


def _check_side(name: str, value: int) -> None:
    """Refuse a picture too small to show a cell."""
    if value < 32:
        raise UsageError(f"{name} must be at least 32 pixels; received {value}.")
