"""Labelled pictures of one laboratory, and what a network says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leuko.bundle import ModelBundle
from leuko.cells import find_cell
from leuko.cells.texture import first_view
from leuko.errors import ImageError
from leuko.imaging.pictures import decoded
from leuko.runtime.network.session import open_session, run_outputs
from leuko.source import Source
from leuko.support.artifacts import digest_bytes
from leuko.support.parallel import bounded_map, worker_count
from leuko.support.reporter import SILENT, Reporter

__all__ = ["Picture", "Shown", "show", "survey"]

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Picture:
    """One usable picture.

    Attributes
    ----------
    source : Source
        Read again whenever its pixels are needed.
    sha256 : str
        Of its bytes.
    missing : str
        Why no cell is found in it; empty where one is.
    """

    source: Source
    sha256: str
    missing: str


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What a network says of pictures.

    Attributes
    ----------
    features : (N, K, d) float32 or None
        What enters the last layer, for each of K views; None where the graph hides it.
    measures : list of N (m,) float64 or None
        See `leuko.cells.morphometry.measure_cell`; all None if not asked for.
    """

    features: Floats | None
    measures: list[Doubles | None]


def survey(
    sources: Sequence[Source],
    *,
    threads: int | None = None,
    reporter: Reporter = SILENT,
) -> Iterator[Picture | ImageError]:
    """Read pictures and look for their cells.

    Parameters
    ----------
    sources : sequence of Source
        Read once.
    threads : int, optional
        As many as there are cores when None.
    reporter : Reporter, optional
        Told how far it is, and what a person should know.

    Yields
    ------
    Picture or ImageError
        In order.
    """

    def look(source: Source) -> Picture | ImageError:
        try:
            with source.open() as data, decoded(data) as image:
                return Picture(source, digest_bytes(data), find_cell(image.pixels).reason)
        except ImageError as error:
            return error.without_frames()

    for done, found in enumerate(bounded_map(look, sources, workers=worker_count(threads)), 1):
        yield found
        reporter.progress("reading", done, len(sources))


def show(
    bundle: ModelBundle,
    pictures: Sequence[Picture],
    *,
    measure: bool = False,
    threads: int | None = None,
    reporter: Reporter = SILENT,
) -> Shown:
    """Show pictures to a bundle's network.

    Parameters
    ----------
    bundle : ModelBundle
        Gives the network alone, and its preprocessing.
    pictures : sequence of Picture
        At least one.
    measure : bool
        Whether to give `Shown.measures`.
    threads, reporter
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
    spec = bundle.preprocess
    session: Any = open_session(bundle.onnx, spec, classes=len(bundle.scheme), features=True)

    def ask(picture: Picture) -> tuple[list[Doubles], Doubles | None]:
        with picture.source.open() as data, decoded(data, spec) as image:
            seen = first_view(image.pixels, spec)
        return run_outputs(session, [seen.pixels, *seen.others()]), (
            seen.measures() if measure else None
        )

    features: list[Floats] = []
    measures: list[Doubles | None] = []
    for outputs, measured in bounded_map(ask, pictures, workers=worker_count(threads)):
        measures.append(measured)
        if len(outputs) > 1:
            features.append(outputs[1].astype(np.float32))
        reporter.progress("labelled cells", len(measures), len(pictures))
    return Shown(np.stack(features) if features else None, measures)
