"""Models that come along, and any other, opened by name or path."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from leuko.bundle import ModelBundle, is_model_path
from leuko.errors import BundleError
from leuko.runtime.classifier import OnnxClassifier

__all__ = ["load", "zoo_models"]


def zoo_models() -> dict[str, Path]:
    """Bundled models by name.

    Returns
    -------
    dict of str to Path
        Zips inside the package.
    """
    folder = Path(str(resources.files("leuko") / "zoo"))
    return {path.stem: path for path in sorted(folder.glob("*.zip"))}


def load(
    model: str | os.PathLike[str] = "default",
    *,
    threads: int | None = None,
    device: str = "cpu",
) -> OnnxClassifier:
    """Open a classifier.

    Parameters
    ----------
    model : str or path-like
        A name of the zoo, or the path of a bundle or a run folder: a path has a separator or
        ends in ``.zip``.
    threads, device
        See `OnnxClassifier`.

    Returns
    -------
    OnnxClassifier
        Checked and ready.

    Raises
    ------
    BundleError
        When there is no such model, or it is damaged.
    DeviceError
        When the device cannot be used.
    """
    text = os.fspath(model)
    if not is_model_path(model):
        models = zoo_models()
        if text not in models:
            known = ", ".join(models) or "none in this install"
            raise BundleError(
                f"There is no bundled model {text!r} (there is: {known}). A path to a bundle or "
                f"a run folder has a separator in it, as in ./{text}."
            )
        return OnnxClassifier(ModelBundle.load(models[text]), threads=threads, device=device)
    return OnnxClassifier(ModelBundle.load(text), threads=threads, device=device)
