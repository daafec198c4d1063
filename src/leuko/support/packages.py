"""Packages that are missing or broken: a sentence that mends it.

Two builds of one package share their files, as opencv-python and opencv-python-headless do: to
remove one of them leaves the other broken.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Final

from leuko.errors import InstallError, LeukoError, MissingExtraError
from leuko.support.quiet import silence

__all__ = ["fault_behind", "import_extra", "import_onnxruntime", "require"]

_BASE: Final = {
    "numpy": ("ndarray", "numpy"),
    "cv2": ("imread", "opencv-python-headless"),
    "onnxruntime": ("InferenceSession", "onnxruntime"),
    "PIL.Image": ("open", "pillow"),
    "jinja2": ("Environment", "jinja2"),
    "typer": ("Typer", "typer"),
    "rich.console": ("Console", "rich"),
    "simplejpeg": ("decode_jpeg", "simplejpeg"),
    "tifffile": ("TiffFile", "tifffile"),
}
"""What must be there of each package, and how it is called where it is installed from."""


def fault_behind(error: Exception) -> InstallError | None:
    """Find the package whose fault an exception is.

    Parameters
    ----------
    error : Exception
        Whatever an import raised, or the first use of what was imported.

    Returns
    -------
    InstallError or None
        Of the first package that cannot be used; None when all can, and it is another fault, or
        an error of ours, which says what it is.
    """
    if isinstance(error, LeukoError):
        return None
    silence()
    why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    for module, (name, package) in _BASE.items():
        try:
            getattr(importlib.import_module(module), name)
        except Exception:  # noqa: BLE001 - a broken package may fail in any way
            return InstallError(package, why.strip()[:200])
    return None


def import_onnxruntime() -> Any:
    """Import ONNX Runtime, silenced.

    Returns
    -------
    module
        ``onnxruntime``.

    Raises
    ------
    InstallError
        When it is missing or broken.
    """
    silence()
    try:
        import onnxruntime

        onnxruntime.InferenceSession  # noqa: B018 - of a package that was emptied nothing is there
    except Exception as error:  # a broken package may fail in any way
        if fault := fault_behind(error):
            raise fault from error
        raise
    return onnxruntime


def import_extra(package: str, what: str = "Exporting a model", extra: str = "export") -> Any:
    """Import an optional package.

    Parameters
    ----------
    package : str
        Its import name.
    what : str
        What needs it, as the subject of a sentence.
    extra : str
        The extra that brings it.

    Returns
    -------
    module
        The package.

    Raises
    ------
    MissingExtraError
        When it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(what, extra, package.partition(".")[0]) from error


def require(*modules: str) -> None:
    """Raise early for packages that are imported late, where they would fail file by file.

    Parameters
    ----------
    *modules : str
        Submodules, which a package that was emptied lacks. None is imported, its package is.

    Raises
    ------
    InstallError
        For the first that is not there.
    """
    for module in modules:
        package = module.partition(".")[0]
        try:
            there = importlib.util.find_spec(module) is not None
        except ImportError:
            there = False
        if not there:
            known = {name.partition(".")[0]: called for name, (_, called) in _BASE.items()}
            raise InstallError(known[package], f"{module} is not there")
