"""A file that is no usable image, as reports name it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from leuko.errors import ImageError

__all__ = ["RejectedFile"]


@dataclass(frozen=True, slots=True)
class RejectedFile:
    """A file that is no usable image.

    Attributes
    ----------
    path : str
        As reported.
    reason, detail : str
        See `leuko.errors.ImageError`.
    """

    path: str
    reason: str
    detail: str

    @classmethod
    def of(cls, error: ImageError, file: Path, path: str) -> Self:
        """Note why a file was rejected.

        Parameters
        ----------
        error : ImageError
            Of opening it.
        file : Path
            As it was opened.
        path : str
            As it is reported, also in the detail.

        Returns
        -------
        RejectedFile
        """
        return cls(path, error.reason, error.detail.replace(str(file), path))

    def to_dict(self) -> dict[str, str]:
        """Plain values for JSON.

        Returns
        -------
        dict
        """
        return asdict(self)
