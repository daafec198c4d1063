"""A field that was searched comes back as it was."""

from __future__ import annotations

import numpy as np
import pytest

from leuko.data.synth import draw_field, draw_slide_style
from leuko.errors import BatchError, ImageError
from leuko.field.find import FoundField, find_cells
from leuko.field.once import see
from leuko.field.parts import decode_found, encode_found
from leuko.field.report import Field
from leuko.imaging.decode import decode_image, encode_jpeg, encode_png
from leuko.runtime.detectors import load_detector
from leuko.source import bytes_source


def test_what_is_kept_is_what_was_found() -> None:
    style = draw_slide_style(np.random.default_rng([8, 1]))
    drawn = draw_field(
        4, np.random.default_rng([9, 1]), style, height=300, width=400, pixels_per_micrometre=6.0
    )
    found = find_cells(bytes_source("a/b.png", encode_png(drawn.pixels)), load_detector())
    assert len(found.field.cells) >= 3
    payload = encode_found(found)
    assert payload == encode_found(found)
    back = decode_found(payload, "part")
    assert repr(back.field) == repr(found.field)  # not-a-number is not equal to itself
    assert (back.step, back.crops, back.sight) == (found.step, found.crops, found.sight)
    assert back.overview is not None
    assert found.overview is not None
    assert np.abs(back.overview.astype(int) - found.overview).mean() < 4


def test_a_picture_that_cannot_be_read_is_kept_too() -> None:
    found = find_cells(bytes_source("x", b"no picture"), load_detector())
    assert (found.field.status, found.overview) == ("rejected", None)
    back = decode_found(encode_found(found), "part")
    assert (back.field.reason, back.overview, back.sight) == (found.field.reason, None, None)


def test_damage_is_told() -> None:
    with pytest.raises(BatchError, match=r"part is damaged: .* Delete it"):
        decode_found(b"PK\x03\x04", "part")


def test_a_seam_in_a_slide_is_no_tear_in_what_was_kept_of_it() -> None:
    """Slides are put together of photographs; a reduced copy of one is no damaged file."""
    pixels = np.zeros((512, 512, 3), np.uint8)
    pixels[:256] = np.linspace(0, 255, 512)[:, None]
    pixels[256:] = pixels[:256, ::-1]
    with pytest.raises(ImageError, match="does not go on"):
        decode_image(encode_jpeg(pixels))
    found = FoundField(Field("a.svs", "ok"), overview=pixels, sight=see("a.svs", pixels, ()))
    again = decode_found(encode_found(found), "a.field.zip")
    assert (again.field.name, again.sight) == ("a.svs", found.sight)
    assert again.overview is not None
    assert np.abs(again.overview.astype(int) - pixels).mean() < 2
