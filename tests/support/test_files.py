"""Thumbnails, Leuko's own pictures, and lists that other systems wrote."""

from __future__ import annotations

import io
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leuko.imaging.decode import decode_image, encode_jpeg, encode_png
from leuko.support.files import (
    Strays,
    drew,
    find_listed,
    is_own_picture,
    mark_own_picture,
    read_text,
    stray_kind,
    why_unlisted,
)
from tiny import paint


@pytest.mark.parametrize(
    "name",
    ["@eaDir", ".@__thumb", ".thumbnails", "__MACOSX", "._a.jpg", ".picasaoriginals", "Thumbs.db",
     "$RECYCLE.BIN", ".Trash-1000", "lost+found", "#recycle", "SYNOFILE_THUMB_XL.jpg",
     "desktop.ini", "System Volume Information"],
)  # fmt: skip
def test_strays_are_known_in_any_case(name: str) -> None:
    assert stray_kind(name)
    assert stray_kind(name.swapcase()) == stray_kind(name)


@pytest.mark.parametrize(
    "name", ["a.jpg", "Neutrophil", "eaDir", "trash.jpg", "my thumbnails", "_._x.jpg", ".hidden"]
)
def test_other_names_are_none(name: str) -> None:
    assert stray_kind(name) == ""


def test_strays_are_said_in_one_sentence() -> None:
    strays = Strays()
    assert not strays
    assert strays.sentence() == ""
    folders = [f"{place}/@eaDir/1.jpg" for place in "aab"]
    paths = [*folders, "a/x.jpg", "._x", "a/._x"]
    assert [strays.take(path) for path in paths] == [True, True, True, False, True, True]
    assert strays.sentence() == (
        "Passed over, as no pictures of cells: 2 x @eaDir, a NAS's thumbnails; "
        "2 x ._*, made by macOS"
    )


def save(kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(paint("Monocyte")).save(file, kind, **settings)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        encode_png(paint("Monocyte")),
        encode_png(paint("Monocyte")[..., 0]),
        encode_jpeg(paint("Monocyte")),
        save("JPEG", exif=Image.Exif()),
        save("JPEG", progressive=True, comment=b"from a camera"),
    ],
)
def test_a_mark_changes_no_pixel(data: bytes, tmp_path: Path) -> None:
    marked = mark_own_picture(data)
    assert not is_own_picture(data[:512])
    assert is_own_picture(marked[:512])
    for read in (lambda b: decode_image(b).pixels, lambda b: np.asarray(Image.open(io.BytesIO(b)))):
        np.testing.assert_array_equal(read(marked), read(data))
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "b.PNG").write_bytes(marked)
    assert [drew(tmp_path / name) for name in ("a.png", "b.PNG", "gone.png")] == [0, 1, 0]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert not drew(tmp_path / "a.png")
    assert mark_own_picture(b"RIFF....WEBP") == b"RIFF....WEBP"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_texts_of_any_system(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("zähl.jpg\n細胞.png\n", encoding=encoding, newline="")
    assert read_text(tmp_path / "l.txt") == "zähl.jpg\n細胞.png\n"


@pytest.mark.parametrize("data", [b"z\xe4hl.jpg\n", b"\xff\xfe\x00", b"a\0b"])
def test_what_is_no_text_says_what_to_do(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(data)
    with pytest.raises(ValueError, match="save it again as UTF-8"):
        read_text(tmp_path / "l.txt")


def test_a_listed_file_is_found_however_it_is_written(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "zähl.jpg")
    for name in ("d/a.jpg", decomposed, '"odd".jpg', "e\\f.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for written, name in (
        ("d/a.jpg", "d/a.jpg"),
        ("d\\a.jpg", "d/a.jpg"),
        ('"d\\a.jpg"', "d/a.jpg"),
        (f"'{tmp_path}/d/a.jpg'", "d/a.jpg"),
        ('"zähl.jpg"', decomposed),
        ('"odd".jpg', '"odd".jpg'),  # what is there as it is written comes first
        ("e\\f.jpg", "e\\f.jpg"),
        ('"gone.jpg"', "gone.jpg"),
    ):
        assert find_listed(tmp_path, written) == tmp_path / name, written
    assert "Windows computer" in why_unlisted('"C:\\cells\\a.jpg"')
    assert "Windows computer" in why_unlisted("\\\\nas\\cells\\a.jpg")
    assert why_unlisted("cells/a.jpg") == ""
