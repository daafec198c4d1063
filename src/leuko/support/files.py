"""What lies on people's disks beside their pictures, and how they write lists of them.

Network drives and desktops put thumbnails, copies and notes of their own beside pictures, and Leuko
itself writes pictures for people. None of them is a cell to be counted. `Strays` gathers what was
passed over, so that it can be said in one sentence.
"""

from __future__ import annotations

import codecs
import itertools
import os
import re
import stat
import unicodedata
import zlib
from collections import Counter
from pathlib import Path
from typing import Final

__all__ = [
    "DRAWN_BY_LEUKO",
    "Strays",
    "drew",
    "encoding_of",
    "find_listed",
    "is_own_picture",
    "mark_own_picture",
    "read_text",
    "stray_kind",
    "text_of",
    "why_unlisted",
]

_STRAYS: Final = (
    # Folders of thumbnails, of what was thrown away, and of a system's own.
    (r"@eadir", "@eaDir, a NAS's thumbnails"),
    (r"\.@__thumb", ".@__thumb, a NAS's thumbnails"),
    (r"\.?thumbnails|\.thumb(s|nails)?", "thumbnails"),
    (r"\.?picasaoriginals", ".picasaoriginals, Picasa's copies"),
    (r"__macosx", "__MACOSX, made by macOS"),
    (r"\$recycle\.bin|[#@]recycle|recycler|\.trash.*", "a recycle bin"),
    (r"lost\+found|system volume information|[.#@]snapshots?|@tmp", "a system's own folders"),
    # Files.
    (r"\._.*", "._*, made by macOS"),
    (r"(eh)?thumbs\.db|synofile_thumb_.*", "thumbnails"),
    (r"desktop\.ini", "a desktop's notes"),
)
"""Names of folders and files that are no pictures of cells, in any case, and what they are."""

_STRAY: Final = re.compile("|".join(f"({name})" for name, _ in _STRAYS), re.IGNORECASE | re.DOTALL)

_GROUPS: Final = tuple(
    itertools.accumulate((1 + re.compile(name).groups for name, _ in _STRAYS), initial=1)
)[:-1]

DRAWN_BY_LEUKO: Final = "pictures that Leuko drew"
"""How `Strays` calls what `mark_own_picture` marks."""

_MARK: Final = b"Software\x00leuko: drawn for people, not a cell's picture"

_HEAD: Final = 512
"""Bytes from a file's beginning among which `_MARK` stands."""

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER: Final = 33
"""Where a PNG's second chunk begins: behind the signature and IHDR."""

_DRIVE: Final = re.compile(r"[A-Za-z]:[\\/]|\\\\")


class Strays:
    """What was passed over, by what it is; a folder counts once, whatever is in it."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._folders: set[str] = set()

    def __bool__(self) -> bool:
        """Whether anything was passed over."""
        return bool(self._counts)

    def add(self, kind: str, folder: str = "") -> None:
        """Note a file, or a folder.

        Parameters
        ----------
        kind : str
            From `stray_kind`, or another word for what it is.
        folder : str
            Where it is, if it is a folder; the same one twice is one.
        """
        if not folder or folder not in self._folders:
            self._counts[kind] += 1
        if folder:
            self._folders.add(folder)

    def take(self, path: str) -> bool:
        """Note the first part of a path that is a stray.

        Parameters
        ----------
        path : str
            Of a file, with slashes.

        Returns
        -------
        bool
            Whether there is one.
        """
        parts = path.split("/")
        for at, part in enumerate(parts, 1):
            if kind := stray_kind(part):
                self.add(kind, "/".join(parts[:at]) if at < len(parts) else "")
                return True
        return False

    def sentence(self) -> str:
        """Say what was passed over, and how many.

        Returns
        -------
        str
            Without a full stop; empty for nothing.
        """
        told = [f"{count} x {kind}" for kind, count in self._counts.items()]
        return f"Passed over, as no pictures of cells: {'; '.join(told)}" if told else ""


def stray_kind(name: str) -> str:
    """Say what a folder or a file of that name is, where it is known to be no picture of a cell.

    Parameters
    ----------
    name : str
        One part of a path.

    Returns
    -------
    str
        For a person; empty for any other name.

    Examples
    --------
    >>> stray_kind("@eaDir")
    "@eaDir, a NAS's thumbnails"
    >>> stray_kind("Neutrophil")
    ''
    """
    match = _STRAY.fullmatch(name)
    if match is None:
        return ""
    return next(
        what for group, (_, what) in zip(_GROUPS, _STRAYS, strict=True) if match[group] is not None
    )


def mark_own_picture(data: bytes) -> bytes:
    """Write into a PNG or a JPEG that Leuko drew it for people.

    Parameters
    ----------
    data : bytes
        A whole file.

    Returns
    -------
    bytes
        The same pixels; any other format as it came.

    References
    ----------
    PNG 11.3.4.3 (tEXt), ITU-T T.81 B.2.4.5 (comment segment).
    """
    if data.startswith(_PNG):
        chunk = b"tEXt" + _MARK
        size, check = len(_MARK).to_bytes(4, "big"), zlib.crc32(chunk).to_bytes(4, "big")
        return data[:_PNG_HEADER] + size + chunk + check + data[_PNG_HEADER:]
    if data.startswith(b"\xff\xd8"):
        # JFIF's header must come first.
        at = 4 + int.from_bytes(data[4:6], "big") if data[2:4] == b"\xff\xe0" else 2
        comment = b"\xff\xfe" + (2 + len(_MARK)).to_bytes(2, "big") + _MARK
        return data[:at] + comment + data[at:]
    return data


def is_own_picture(head: bytes) -> bool:
    """Whether a file was marked by `mark_own_picture`.

    Parameters
    ----------
    head : bytes
        Its first 512 bytes, or all.

    Returns
    -------
    bool
    """
    return _MARK in head[:_HEAD]


def drew(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a picture that Leuko drew for people.

    Parameters
    ----------
    path : path-like
        Anything; what cannot be read is none.

    Returns
    -------
    bool
    """
    if not os.fspath(path).lower().endswith((".png", ".jpg", ".jpeg")):
        return False
    try:
        # Opening a pipe would wait for somebody to write into it.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb", buffering=0) as file:
            return is_own_picture(file.read(_HEAD))
    except (OSError, ValueError):
        return False


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a text as people's programs write it: UTF-8, or the UTF-16 of Windows.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    str
        Without a byte-order mark.

    Raises
    ------
    OSError
        When it cannot be read.
    ValueError
        When it is no text in UTF-8 or UTF-16, saying what to do.
    """
    return text_of(Path(path).read_bytes())


def text_of(data: bytes) -> str:
    """Decode a text; see `read_text`.

    Parameters
    ----------
    data : bytes
        All of it.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        See there.
    """
    try:
        return data.decode(encoding_of(data))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"it is no text in UTF-8 or UTF-16 (byte {error.start} is none); save it again as UTF-8"
        ) from error


def encoding_of(start: bytes) -> str:
    """Tell the encoding of a text by its first bytes.

    Parameters
    ----------
    start : bytes
        At least two of them, where there are two.

    Returns
    -------
    str
        UTF-16 where a byte-order mark or a zero byte says so, else UTF-8; both pass over a mark.
    """
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if start[1:2] == b"\0" and start[:1] != b"\0":  # PowerShell may leave the mark out
        return "utf-16-le"
    return "utf-8-sig"


def find_listed(folder: Path, name: str) -> Path:
    r"""Find the file that a line of a list means, whatever system wrote it.

    Parameters
    ----------
    folder : Path
        What paths are relative to.
    name : str
        As it is written: perhaps in quotes, with backslashes, or with letters and accents in one
        character where the disk has two.

    Returns
    -------
    Path
        The first reading for which something is there; the plainest one when nothing is.
    """
    bare = name[1:-1] if len(name) > 2 and name[0] == name[-1] and name[0] in "\"'" else name
    for reading in (name, bare, bare.replace("\\", "/")):
        for form in (None, "NFC", "NFD"):
            path = folder / (reading if form is None else unicodedata.normalize(form, reading))
            if os.path.lexists(path):
                return path
    return folder / bare


def why_unlisted(name: str) -> str:
    r"""Say what to do about a path in a list where nothing is.

    Parameters
    ----------
    name : str
        As it is written.

    Returns
    -------
    str
        Why it is not found and what to do, without a full stop; empty where nothing is known.
    """
    if not _DRIVE.match(name.strip("\"'")):
        return ""
    return "it is a path of a Windows computer; write paths relative to the list's own folder"
