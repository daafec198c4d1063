"""Pictures of predictions: sizes, colours where they belong, nothing that a name could break."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
from PIL import ImageColor

from called import called
from five import COLOURS
from leuko.errors import DataError
from leuko.imaging.decode import encode_png
from leuko.prediction import Prediction
from leuko.render.drawing import _is_drawn, file_name, fitted_name, name_width
from leuko.render.picture import (
    SHEET_LIMIT,
    Gallery,
    _captions,
    prediction_picture,
    prediction_sheet,
)
from leuko.render.style import style
from leuko.support.artifacts import digest_bytes
from leuko.support.reporter import Reporter


def answer(probabilities, path="a/95-8-22-3_23_1.jpg"):
    return Prediction.answered(path, np.array(probabilities), "ab" * 32, "cd" * 6)


def image(rows, columns, value=120):
    return np.full((rows, columns, 3), value, np.uint8)


def pixels_of(picture, colour):
    return int((picture == np.array(ImageColor.getrgb(colour), np.uint8)).all(axis=2).sum())


@pytest.mark.parametrize("side", [16, 120, 288, 575, 2000])
def test_any_source_gives_a_readable_picture(side):
    picture = prediction_picture(image(side, side), answer([0.1, 0.2, 0.5, 0.1, 0.1]))
    shown = min(max(side, 480), 640)
    assert picture.dtype == np.uint8
    assert picture.shape == (shown + 56, shown + 400 + 84, 3)


def test_a_wide_image_is_scaled_and_not_cut():
    pixels = image(100, 400)
    pixels[:, :100], pixels[:, 300:] = (255, 0, 0), (0, 0, 255)
    picture = prediction_picture(pixels, answer([0.2] * 5))
    assert picture.shape[1] == 480 + 484
    assert pixels_of(picture, "#ff0000") > 10_000
    assert pixels_of(picture, "#0000ff") > 10_000


def test_bars_are_as_long_as_the_probabilities():
    picture = prediction_picture(image(480, 480), answer([0.1, 0.2, 0.0, 0.3, 0.4]))
    areas = [pixels_of(picture, colour) for colour in COLOURS]
    assert areas[2] == 0
    for index, share in enumerate((0.1, 0.2, 0.0, 0.3)):
        assert areas[index] / areas[4] == pytest.approx(share / 0.4, abs=0.04)


@pytest.mark.parametrize(
    ("decision", "reason"),
    [("unsure", "low-confidence"), ("unsure", "blurred"), ("not-a-cell", "blank"),
     ("unlike-training", "far-from-training"), ("duplicate", "the same cell as b.jpg")],
)  # fmt: skip
def test_what_is_not_accepted_has_no_colour_of_a_class(decision, reason):
    row = answer([0.1, 0.2, 0.3, 0.15, 0.25])
    doubted = replace(row, decision=decision, reason=reason)
    for draw in (prediction_picture, lambda pixels, row: prediction_sheet([(pixels, row)])):
        accepted, drawn = (draw(image(300, 300), one) for one in (row, doubted))
        assert accepted.shape == drawn.shape
        assert all(pixels_of(accepted, colour) > 100 for colour in COLOURS)
        assert all(pixels_of(drawn, colour) == 0 for colour in COLOURS)
        assert pixels_of(drawn, style().warn) > 50 > pixels_of(accepted, style().warn)
        other = draw(image(300, 300), replace(doubted, reason="few-pixels"))
        assert not np.array_equal(drawn, other)  # it says why


def test_nothing_runs_out_of_its_place_on_the_sheet():
    row = replace(
        answer([0.2, 0.1, 0.3, 0.25, 0.15], path="x" * 90), reason="low-confidence",
        decision="unsure", limit=0.99,
    )  # fmt: skip
    for one in (row, replace(row, reason="why " * 40), replace(row, decision="unlike-training")):
        sheet = prediction_sheet([(image(9, 9), one)] * 2, columns=2)
        gap = sheet[:-60, 28 + 208 : 28 + 226]
        assert (gap == 255).all()


def test_a_rejected_image_shows_no_bar():
    row = Prediction(
        "x.jpg", "rejected", reason="truncated", detail="The JPEG file ends too early."
    )
    picture = prediction_picture(image(50, 60), row)
    assert all(pixels_of(picture, colour) == 0 for colour in COLOURS)


@pytest.mark.parametrize("name", ["日本語", "é" * 300, "a\nb\tc.jpg", "\udcff.jpg", "", "<b>$x^$"])
def test_any_file_name_can_be_drawn(name):
    row = answer([0.2] * 5, path=name)
    assert prediction_picture(image(20, 20), row).shape[2] == 3
    assert prediction_sheet([(image(20, 20), row)]).shape[2] == 3


def captions(*names):
    return _captions([answer([0.1, 0.1, 0.6, 0.1, 0.1], path=name) for name in names])


def test_letters_of_many_scripts_are_drawn_as_they_are():
    if not hasattr(cv2, "FontFace"):
        pytest.skip("OpenCV before 5 has letters of ASCII alone")
    names = ["Größe.png", "Ł_ő_ñ.png", "細胞.png", "клетка.png", "ascii.png"]
    assert captions(*names) == names
    sheets = [
        prediction_sheet([(image(20, 20), answer([0.2] * 5, path=name))])
        for name in ("細胞.png", "細菌.png", "Größe.png", "Grosse.png", "??.png")
    ]
    assert len({sheet.tobytes() for sheet in sheets}) == len(sheets)


def test_what_no_font_has_is_escaped():
    assert file_name("a/b\nc.png") == "b\\nc.png"
    assert file_name("zelle_\udce4.png") == "zelle_\\udce4.png"
    assert file_name("\u0e44.png") == "\\u0e44.png"
    assert file_name("e\u0301.png") == file_name("é.png")


def test_without_a_font_of_more_letters_names_stay_apart(monkeypatch):
    monkeypatch.delattr(cv2, "FontFace", raising=False)
    _is_drawn.cache_clear()
    assert captions("ü.png", "u.png", "細.png") == ["\\xfc.png", "u.png", "\\u7d30.png"]
    _is_drawn.cache_clear()


def test_no_two_files_of_a_sheet_read_alike():
    # Where the middle is cut out, the slide's field would be gone; the end has it.
    first, second = captions("95-8-22-3_23_1.jpg", "95-8-22-3_24_1.jpg")
    assert (first, second) == ("…2-3_23_1.jpg", "…2-3_24_1.jpg")
    # One file alone, or twice, needs none of that.
    assert captions("95-8-22-3_23_1.jpg", "95-8-22-3_23_1.jpg") == ["95-8-2…_1.jpg"] * 2
    # The same name in two folders, and names that differ where they are cut, are numbered.
    assert captions("a/1.png", "2.png", "b/1.png") == ["1: 1.png", "2.png", "3: 1.png"]
    long = captions("a" * 50 + "1" + "b" * 50, "a" * 50 + "2" + "b" * 50)
    assert [text[:4] for text in long] == ["1: …", "2: …"]
    assert captions("e\u0301.png", "é.png") == ["1: é.png", "2: é.png"]


@pytest.mark.parametrize("name", ["a" * 90, "細" * 90, "ü" * 3000, "日本語.png"])
@pytest.mark.parametrize("middle", [True, False])
def test_a_name_is_cut_to_fit(name, middle):
    text = fitted_name(name, 13, 100, middle=middle)
    assert name_width(text, 13) <= 100
    if text != name:
        head, tail = text.split("…")
        assert name.startswith(head)
        assert name.endswith(tail)
        assert bool(head) == middle
        assert name_width(f"{head}{name[0]}…{tail}", 13) > 90
    assert fitted_name(name, 13, 1) == "…"


def test_the_same_input_gives_the_same_picture():
    row = answer([0.05, 0.05, 0.8, 0.05, 0.05])
    assert np.array_equal(
        prediction_picture(image(90, 90), row), prediction_picture(image(90, 90), row)
    )


def test_a_sheet_grows_with_its_images():
    rows = [(image(40, 60, value=10 * k), answer([0.2] * 5)) for k in range(7)]
    sheet = prediction_sheet(rows, columns=3)
    assert sheet.shape == (2 * 28 + 3 * 300 + 32, 2 * 28 + 3 * 228 - 20, 3)


@pytest.mark.slow
def test_a_sheet_has_a_limit():
    rows = [(image(16, 16), answer([0.2] * 5))] * (SHEET_LIMIT + 60)
    assert prediction_sheet(rows, columns=20).shape[0] == 2 * 28 + SHEET_LIMIT // 20 * 300 + 32


@pytest.mark.parametrize("columns", [2, 8])
def test_a_sheet_says_how_many_there_are(columns):
    rows = [(image(40, 60), answer([0.2] * 5))] * 2
    whole = prediction_sheet(rows, columns=columns)
    assert np.array_equal(prediction_sheet(rows, columns=columns, total=2), whole)
    part = prediction_sheet(rows, columns=columns, total=1234)
    assert part.shape == whole.shape
    assert np.array_equal(part[:-60], whole[:-60])
    assert not np.array_equal(part[-60:], whole[-60:])


class Sources:
    """Pictures that can be read twice, and whose bytes may change in between."""

    def __init__(self, count):
        self.data = [encode_png(image(300 + k, 200, value=k)) for k in range(count)]
        self.reads = 0

    def __iter__(self):
        return (called(f"{k}.png", partial(self.read, k)) for k in range(len(self.data)))

    def read(self, number):
        self.reads += 1
        return self.data[number]


def rows_of(sources):
    """An answer for each, but for every third."""
    for number, source in enumerate(sources):
        if number % 3 == 2:
            yield Prediction(source.name, "rejected", reason="corrupt", detail="Damaged.")
        else:
            row = answer([0.2] * 5, path=source.name)
            yield replace(row, sha256=digest_bytes(source.read()))


def test_a_gallery_draws_the_first_images_from_their_sources():
    sources, gallery, said = Sources(9), Gallery(4), []
    rows = list(gallery.keep(rows_of(gallery.watch(sources))))
    assert [row.path for row in rows] == [f"{k}.png" for k in range(9)]
    sources.reads = 0
    drawn = gallery.draw(reporter=Reporter(say=said.append))
    assert (sources.reads, said) == (3, [])
    pairs = [(image(300 + k, 200, value=k), rows[k]) for k in (0, 1, 2, 3)]
    pairs[2] = (image(208, 208, value=0xEE), rows[2])  # a rejected one has no pixels
    assert np.array_equal(drawn, prediction_sheet(pairs, total=9))
    # What has changed since is not drawn beside the answer to what it was.
    sources.data[1] = encode_png(image(300, 300))
    drawn = gallery.draw(reporter=Reporter(say=said.append))
    assert said == ["Not drawn: 1.png (the file changed while it was read)"]
    assert np.array_equal(drawn, prediction_sheet(pairs[:1] + pairs[2:], total=9))


def test_a_gallery_of_one_and_of_none():
    sources, gallery = Sources(1), Gallery()
    (row,) = gallery.keep(rows_of(gallery.watch(sources)))
    drawn = gallery.draw(reporter=Reporter(say=pytest.fail))
    assert np.array_equal(drawn, prediction_picture(image(300, 200, value=0), row))
    with pytest.raises(DataError, match="no answered image"):
        Gallery().draw(reporter=Reporter(say=pytest.fail))


def test_what_is_no_picture_is_refused():
    with pytest.raises(DataError, match=r"\(H, W, 3\)"):
        prediction_picture(np.zeros((5, 5), np.uint8), answer([0.2] * 5))
    with pytest.raises(DataError, match="at least one"):
        prediction_sheet([])
