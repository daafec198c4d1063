"""Pictures of one laboratory, shown to a network as they are and slightly altered.

What one may do to a picture without changing its cell (turn it, mirror it, magnify, blur or stain
it a little) should not change the answer either. How much it does is known without any label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from leuko.artifacts import digest_bytes
from leuko.bundle import ModelBundle
from leuko.cells import CellFinding, find_cell
from leuko.cells.style import FirstLook, first_look
from leuko.errors import ImageError
from leuko.imaging import PreprocessSpec, decode_image, warp_image
from leuko.parallel import Progress, bounded_map, worker_count
from leuko.runtime.classifier import _open_session, run_outputs
from leuko.runtime.looks import FLOOR
from leuko.runtime.sources import Source

__all__ = ["VIEWS", "Picture", "Shown", "altered", "show", "survey"]

Pixels = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

VIEWS: Final = 7
"""A picture is shown as it is, turned, mirrored, magnified, blurred, and stained twice."""

_MAGNIFIED: Final = 0.06
_BLURRED: Final = 0.005
_STAINED: Final = 0.08
"""Largest change: of the scale, of the blur (over the shorter side), of a channel's density."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One usable picture.

    Attributes
    ----------
    source : Source
        Read again whenever its pixels are needed.
    sha256 : str
        Of its bytes.
    size : (int, int)
        Rows and columns of the whole picture.
    finding : CellFinding
        Of the whole picture; without its masks.
    """

    source: Source
    sha256: str
    size: tuple[int, int]
    finding: CellFinding


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What a network says of pictures, look by look.

    Attributes
    ----------
    logits : (N, V, K, 5) float64
        Logarithms of probabilities, not calibrated: of N pictures, V views and K looks.
    features : (N, K, d) float32 or None
        What enters the last layer, for the pictures as they are; None where the graph hides it.
    measures : list of N (m,) float64 or None
        See `leuko.cells.measure.measure_cell`, of the pictures as they are; all None if not asked
        for.
    """

    logits: Doubles
    features: Floats | None
    measures: list[Doubles | None]


def survey(
    sources: Sequence[Source],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Picture | ImageError]:
    """Read pictures and find their cells.

    Parameters
    ----------
    sources : sequence of Source
        Read once.
    threads : int, optional
        As many as there are cores when None.
    progress : callable, optional
        Called as ``progress("reading", done, total)``.

    Yields
    ------
    Picture or ImageError
        In order.
    """

    def look(source: Source) -> Picture | ImageError:
        try:
            data = source.read()
            pixels = decode_image(data).pixels
        except ImageError as error:
            return error
        found = find_cell(pixels)
        nothing = np.zeros((0, 0), np.uint8)
        bare = replace(found, nucleus=nothing, cell=nothing)
        size = (pixels.shape[0], pixels.shape[1])
        return Picture(source, digest_bytes(data), size, bare)

    for done, found in enumerate(bounded_map(look, sources, workers=worker_count(threads)), 1):
        yield found
        if progress is not None:
            progress("reading", done, len(sources))


def show(
    bundle: ModelBundle,
    spec: PreprocessSpec,
    pictures: Sequence[Picture],
    *,
    views: int = VIEWS,
    measure: bool = False,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    stage: str = "looking",
) -> Shown:
    """Show pictures to a bundle's network, cut as `spec` says.

    Parameters
    ----------
    bundle : ModelBundle
        Gives the network alone.
    spec : PreprocessSpec
        In place of the bundle's own. Its weights are not applied.
    pictures : sequence of Picture
        At least one.
    views : int
        1 for the pictures as they are, up to `VIEWS`.
    measure : bool
        Whether to give `Shown.measures`.
    seed : int
        Of the alterations; a picture's own follow from this and its digest.
    threads, progress, stage
        See `survey`.

    Returns
    -------
    Shown
        In the order of the pictures.

    Raises
    ------
    ImageError
        When a picture can no longer be read.
    BundleError
        When the network gives no finite answers.
    """
    session: Any = _open_session(bundle.onnx, spec, features=True)

    def ask(picture: Picture) -> tuple[list[Doubles], Doubles | None]:
        pixels = decode_image(picture.source.read(), spec=spec).pixels
        rng = np.random.default_rng([seed, int(picture.sha256[:12], 16)])
        shown = altered(pixels, rng)[:views]
        stack = [_cut(view, spec, scale) for view, scale in shown]
        looks = [look for seen in stack for look in (seen.pixels, *seen.others())]
        return run_outputs(session, looks), stack[0].measures() if measure else None

    count = len(spec.styles)
    logits = np.empty((len(pictures), views, count, 5))
    features: list[Floats] = []
    measures: list[Doubles | None] = []
    for row, (found, measured) in enumerate(
        bounded_map(ask, pictures, workers=worker_count(threads))
    ):
        answers = np.log(np.maximum(found[0], FLOOR))
        logits[row] = answers.reshape(views, count, 5)
        measures.append(measured)
        if len(found) > 1:
            features.append(found[1][:count].astype(np.float32))
        if progress is not None:
            progress(stage, row + 1, len(pictures))
    return Shown(logits, np.stack(features) if features else None, measures)


def altered(pixels: Pixels, rng: np.random.Generator) -> list[tuple[Pixels, float]]:
    """Alter a picture in ways that leave its cell what it is.

    Parameters
    ----------
    pixels : (H, W, 3) uint8, RGB
        A picture.
    rng : numpy.random.Generator
        Decides by how much.

    Returns
    -------
    list of ((h, w, 3) uint8, float)
        `VIEWS` pictures, the first as it was; each with how much larger its micrometre is.
    """
    turns, axis = int(rng.integers(1, 4)), int(rng.integers(2))
    scale = float(np.exp(rng.choice([-1, 1]) * rng.uniform(0.5, 1) * np.log1p(_MAGNIFIED)))
    blur = float(rng.uniform(0.5, 1) * _BLURRED * min(pixels.shape[:2]))
    stains = np.exp(rng.uniform(-_STAINED, _STAINED, (2, 3)))
    views = [
        (pixels, 1.0),
        (np.ascontiguousarray(np.rot90(pixels, turns)), 1.0),
        (np.ascontiguousarray(np.flip(pixels, axis)), 1.0),
        (_magnified(pixels, scale), scale),
        (np.asarray(cv2.GaussianBlur(pixels, (0, 0), max(0.3, blur)), np.uint8), 1.0),
    ]
    return views + [(_stained(pixels, gains), 1.0) for gains in stains]


def _cut(pixels: Pixels, spec: PreprocessSpec, scale: float) -> FirstLook:
    """Cut one view; a scale that is known goes with the magnification."""
    known = spec.micrometre * scale
    if known:
        spec = replace(spec, micrometre=min(100.0, max(0.5, known)))
    return first_look(pixels, spec)


def _magnified(pixels: Pixels, scale: float) -> Pixels:
    """Show a picture larger or smaller about its middle, in a frame of the same size."""
    rows, columns = pixels.shape[:2]
    matrix = np.array([[scale, 0, (1 - scale) * (columns - 1) / 2],
                       [0, scale, (1 - scale) * (rows - 1) / 2]])  # fmt: skip
    return warp_image(pixels, matrix, (rows, columns))


def _stained(pixels: Pixels, gains: Doubles) -> Pixels:
    """Multiply the optical density of each channel."""
    levels = (np.arange(256)[:, None] + 0.5) / 255.5
    table = np.round(255 * levels**gains).clip(0, 255).astype(np.uint8).reshape(1, 256, 3)
    return np.asarray(cv2.LUT(pixels, table), np.uint8)
