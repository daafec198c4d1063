"""A field that was searched, as bytes, for a run that may be stopped before all are done."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import fields
from typing import Any, Final

from leuko.errors import BatchError
from leuko.field.find import FoundField
from leuko.field.once import Sight
from leuko.field.report import Field, FieldCell
from leuko.imaging.decode import decode_own, encode_jpeg
from leuko.prediction import Prediction

__all__ = ["decode_found", "encode_found"]

_WHEN: Final = (1980, 1, 1, 0, 0, 0)
"""The date of every member: equal fields are equal to the byte."""

_TOLD: Final = "field.json"
_OVERVIEW: Final = "overview.jpg"


def encode_found(done: FoundField) -> bytes:
    """Pack a field with its crops.

    Parameters
    ----------
    done : FoundField
        What was found.

    Returns
    -------
    bytes
        A zip archive; equal fields give equal bytes.
    """
    told = {
        "field": _plain(done.field, "cells"),
        "cells": [
            {"box": cell.box, "score": cell.score, "answer": _plain(cell.answer, "scheme")}
            for cell in done.field.cells
        ],
        "step": done.step,
        "sight": None if done.sight is None else done.sight.to_dict(),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, _TOLD, json.dumps(told, sort_keys=True).encode())
        if done.overview is not None:
            _add(archive, _OVERVIEW, encode_jpeg(done.overview))
        for number, crop in enumerate(done.crops):
            _add(archive, f"{number}.png", crop)
    return buffer.getvalue()


def decode_found(payload: bytes, source: str) -> FoundField:
    """Unpack a field.

    Parameters
    ----------
    payload : bytes
        From `encode_found`.
    source : str
        Where it came from, for the message.

    Returns
    -------
    FoundField
        Its overview has been through a JPEG.

    Raises
    ------
    BatchError
        When it is damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            told = json.loads(archive.read(_TOLD))
            cells = tuple(
                FieldCell(
                    _tuple(cell["box"]),
                    cell["score"],
                    Prediction(**_tuples(cell["answer"])),
                )
                for cell in told["cells"]
            )
            return FoundField(
                Field(**_tuples(told["field"]), cells=cells),
                told["step"],
                tuple(archive.read(f"{number}.png") for number in range(len(cells))),
                decode_own(archive.read(_OVERVIEW)) if _OVERVIEW in archive.namelist() else None,
                Sight.from_dict(told["sight"]) if told["sight"] else None,
            )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise BatchError(
            f"{source} is damaged: {error}. Delete it and run the same command with --resume."
        ) from error


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add a member that is the same whenever it is written."""
    archive.writestr(zipfile.ZipInfo(name, _WHEN), data)


def _plain(value: Field | Prediction, without: str) -> dict[str, Any]:
    """The attributes of a frozen row."""
    return {one.name: getattr(value, one.name) for one in fields(value) if one.name != without}


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Turn JSON's lists back into the tuples of a frozen row."""
    return {name: _tuple(value) for name, value in values.items()}


def _tuple(value: Any) -> Any:
    """A list as a tuple, and lists in it too."""
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value
