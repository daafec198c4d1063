"""File names, schema versions, digests, and writes that leave the old file or the new one.

Everything that Leuko puts on disk goes through `atomic_write` (one file) or `atomic_folder`
(several files that belong together): written beside the target under a temporary name, flushed
to the disk, then moved into place with one `os.replace`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from leuko.errors import DataError, OutputError

__all__ = [
    "RESEARCH_USE",
    "SCHEMA_VERSIONS",
    "TEMPORARY_PREFIX",
    "atomic_folder",
    "atomic_write",
    "atomic_write_bytes",
    "atomic_write_json",
    "atomic_write_text",
    "canonical_json",
    "check_schema",
    "digest_bytes",
    "digest_file",
    "digest_json",
    "finite",
    "is_stream",
    "json_text",
    "prepare_folder",
    "read_json",
    "restore_folder",
    "schema",
]

_LONGEST_NAME: Final = 255
"""Bytes; so it is on every file system in use."""

SCHEMA_VERSIONS: Final = {
    "manifest": 1,
    "drawn": 1,
    "audit": 1,
    "balance": 1,
    "bundle": 1,
    "export": 1,
    "predictions": 2,
    "count": 2,
    "field": 1,
    "batch": 4,
    "evaluation": 1,
    "comparison": 1,
    "adaptation": 2,
    "training": 1,
    "environment": 1,
    "shrunk": 1,
    "models": 1,
    "model": 1,
    "card": 1,
    "calibration": 1,
}
"""Major version of every JSON document, by name."""

TEMPORARY_PREFIX: Final = ".leuko-"
"""How every temporary file begins; whatever bears it may be deleted when no run is under way."""

RESEARCH_USE: Final = (
    "Research use only. Leuko is not a medical device and offers no diagnosis; "
    "every count must be reviewed by a qualified person."
)
"""The sentence that every report, card and page carries."""


def schema(name: str) -> str:
    """Schema identifier of a document, such as ``leuko.manifest/1``.

    Parameters
    ----------
    name : str
        A key of `SCHEMA_VERSIONS`.

    Returns
    -------
    str
        The identifier to put under ``"schema"``.
    """
    return f"leuko.{name}/{SCHEMA_VERSIONS[name]}"


def digest_bytes(data: bytes | memoryview) -> str:
    """SHA-256 of bytes, in hexadecimal.

    Parameters
    ----------
    data : bytes
        What to digest.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> digest_bytes(b"")[:12]
    'e3b0c44298fc'
    """
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file, read in pieces.

    Parameters
    ----------
    path : Path
        A readable file.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes.

    Parameters
    ----------
    value : object
        Anything `json` can write. Not-a-number and infinities are refused.

    Returns
    -------
    bytes
        UTF-8.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8", "surrogatepass")


def digest_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON.

    Parameters
    ----------
    value : object
        See `canonical_json`.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    return digest_bytes(canonical_json(value))


def prepare_folder(path: Path) -> Path:
    """Create a folder and its parents, or say in one sentence why that cannot be done.

    Parameters
    ----------
    path : Path
        The folder.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    OutputError
        When it cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _output_error(path, error) from error
    return path


@contextlib.contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` and move it into place when the block ends well.

    Parameters
    ----------
    path : Path
        The file to write; its folder is created. The old file stays whole until the new one is.
        Where a symbolic link stands, what it points at is written. A device or a pipe, such as
        ``/dev/stdout``, is no file to be replaced; it is written to as it is.
    durable : bool
        Flush to the disk before the move. Switch it off only for files that can be made again
        and come by the thousand.

    Yields
    ------
    file : binary file
        Write to it; do not close it.

    Raises
    ------
    OutputError
        When the disk is full, the folder is not writable or a folder is in the way. The
        temporary file is removed.
    """
    prepare_folder(path.parent)
    if is_stream(path):
        with path.open("wb") as file:
            yield file
        return
    target = Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114
    if os.path.isdir(target):  # noqa: PTH112 - Path.is_dir raises on a name too long
        raise _output_error(path, IsADirectoryError(errno.EISDIR, "a folder"))
    temporary = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}.tmp"
    try:
        with temporary.open("xb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, target)
    except BrokenPipeError:
        # Not this file: somebody who was told of it meanwhile went away.
        temporary.unlink(missing_ok=True)
        raise
    except OSError as error:
        with contextlib.suppress(OSError):  # on a read-only file system this fails as well
            temporary.unlink(missing_ok=True)
        raise _output_error(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write bytes so that a reader sees the old file or the new one.

    Parameters
    ----------
    path : Path
        The file.
    data : bytes
        All of its content.
    durable : bool
        See `atomic_write`.
    """
    with atomic_write(path, durable=durable) as file:
        file.write(data)


def atomic_write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically.

    Parameters
    ----------
    path : Path
        The file.
    text : str
        All of its content.
    """
    # Lone surrogates stand for the bytes of a file name that is not UTF-8; they are given back.
    atomic_write_bytes(path, text.encode("utf-8", "surrogateescape"))


def atomic_write_json(path: Path, value: Any) -> None:
    """Write readable JSON (two spaces, keys as given), atomically.

    Parameters
    ----------
    path : Path
        The file.
    value : object
        Anything `json` can write; numbers that are not finite become null, as JSON has none.
    """
    atomic_write_text(path, json_text(value) + "\n")


def json_text(value: Any) -> str:
    """Write readable JSON: two spaces, keys as given.

    Parameters
    ----------
    value : object
        Anything `json` can write; numbers that are not finite become null, as JSON has none.

    Returns
    -------
    str
        Without escapes, but for file names that are not UTF-8.
    """
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(finite(value), indent=2, allow_nan=False)
    return text


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder and move it into place as one when the block ends well.

    An older folder of that name is moved aside first and deleted last, so at every moment the
    old one or the new one can be read, by `path` or (for the instant between two renames) by
    its set-aside name, which the next call puts back.

    Parameters
    ----------
    path : Path
        The folder to write.

    Yields
    ------
    folder : Path
        An empty folder to fill.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    path = Path(os.path.realpath(path))
    prepare_folder(path.parent)
    restore_folder(path)
    if path.exists() and not path.is_dir():
        raise _output_error(path, FileExistsError(errno.EEXIST, "a file"))
    aside = _aside(path)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}.new"
    try:
        temporary.mkdir()
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        shutil.rmtree(aside, ignore_errors=True)
        if path.exists():
            os.replace(path, aside)
        os.replace(temporary, path)
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        restore_folder(path)
        raise _output_error(path, error) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        restore_folder(path)
        raise


def restore_folder(path: Path) -> None:
    """Put back a folder that an interrupted `atomic_folder` had moved aside.

    Parameters
    ----------
    path : Path
        The folder that a reader is about to open.
    """
    path = Path(os.path.realpath(path))
    aside = _aside(path)
    if aside.exists() and not path.exists():
        try:
            os.replace(aside, path)
        except OSError as error:
            raise _output_error(path, error) from error


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Read one of Leuko's JSON documents and check what it says it is.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        The document that is expected, a key of `SCHEMA_VERSIONS`.

    Returns
    -------
    dict
        The document.

    Raises
    ------
    DataError
        When the file is not JSON, is another document, or is from a newer major version.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}.") from error
    return check_schema(document, name, str(path))


def check_schema(document: Any, name: str, source: str) -> dict[str, Any]:
    """Check that a parsed document is the one expected, in a version this install reads.

    Parameters
    ----------
    document : object
        What `json` returned.
    name : str
        A key of `SCHEMA_VERSIONS`.
    source : str
        Where it came from, for the message.

    Returns
    -------
    dict
        The document.

    Raises
    ------
    DataError
        See `read_json`.
    """
    received = document.get("schema") if isinstance(document, dict) else None
    kind, _, version = str(received).partition("/")
    if kind != f"leuko.{name}" or not re.fullmatch(r"[0-9]{1,9}", version):
        raise DataError(f"{source} is not a {name} document: expected {schema(name)}, "
                        f"received {received!r}.")  # fmt: skip
    if int(version) > SCHEMA_VERSIONS[name]:
        raise DataError(
            f"{source} was written by a newer Leuko ({received}); this one reads up to "
            f"{schema(name)}. Update Leuko to open it."
        )
    return dict(document)


def finite(value: Any) -> Any:
    """Replace floats that JSON cannot hold by None, and tuples by lists.

    Parameters
    ----------
    value : object
        Nested plain values.

    Returns
    -------
    object
        A copy that `json` can write.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def is_stream(path: Path) -> bool:
    """Whether a device or a pipe stands there, which keeps nothing that could be replaced.

    Parameters
    ----------
    path : Path
        Of anything, or of nothing.

    Returns
    -------
    bool
        False for a file, a folder, and where nothing can be found.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _aside(path: Path) -> Path:
    """Where `atomic_folder` keeps the old folder while the new one takes its place."""
    name = f"{TEMPORARY_PREFIX}{path.name}.old"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f"{TEMPORARY_PREFIX}{digest_bytes(os.fsencode(path.name))[:32]}.old"
    return path.parent / name


def _output_error(path: Path, error: OSError) -> OutputError:
    """Turn an operating-system error into a sentence with a way out."""
    reasons = {
        errno.ENOSPC: "the disk is full; free some space and run the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
        errno.EACCES: "permission is denied; choose another folder",
        errno.EPERM: "permission is denied; choose another folder",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.ENOTDIR: "a file stands where a folder is needed; choose another path",
        errno.EEXIST: "a file stands where a folder is needed; choose another path",
        errno.EISDIR: "a folder stands where a file is needed; choose another path",
    }
    reason = reasons.get(error.errno or 0, error.strerror or str(error))
    return OutputError(f"{path} cannot be written: {reason}.")
