"""The worst mistakes as small pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.cells.view import prepare
from leuko.errors import ImageError
from leuko.imaging.decode import encode_jpeg, read_image
from leuko.imaging.preprocess import PreprocessSpec

__all__ = ["Thumbnail", "worst_mistakes"]

Document = Mapping[str, Any]
Pixels = npt.NDArray[np.uint8]

THUMBNAIL_SIDE: Final = 144
"""Height and width of each picture in pixels; the centre is cut square."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One mistake as a small picture.

    Attributes
    ----------
    path, true, predicted : str
    confidence, probability_of_true : float, 0 to 1
    jpeg : bytes
        Empty when the image could not be read.
    reason : str
        Why there is no picture.
    """

    path: str
    true: str
    predicted: str
    confidence: float
    probability_of_true: float
    jpeg: bytes = b""
    reason: str = ""


def worst_mistakes(evaluation: Document, folder: Path, *, limit: int = 40) -> list[Thumbnail]:
    """Fetch the pictures of the worst mistakes.

    Parameters
    ----------
    evaluation : dict
        ``evaluation.json``, whose ``worst`` lists them.
    folder : Path
        That the paths are relative to. Paths that leave it are not read.
    limit : int
        At most so many.

    Returns
    -------
    list of Thumbnail
        In the order of the evaluation; images that cannot be read stay in the list, with a reason.
    """
    spec = PreprocessSpec(size=(THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    found = []
    for one in evaluation.get("worst", ())[:limit]:
        jpeg, reason = b"", ""
        try:
            jpeg = encode_jpeg(prepare(_pixels(folder, one["path"]), spec), quality=82)
        except ImageError as error:
            reason = error.reason
        found.append(Thumbnail(**one, jpeg=jpeg, reason=reason))
    return found


def _pixels(folder: Path, path: str) -> Pixels:
    """One image of a folder."""
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts:
        raise ImageError("unreadable", f"{path} lies outside the data folder and is not read.")
    return read_image(folder / relative).pixels
