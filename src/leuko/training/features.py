"""A frozen backbone is run once: its features are computed by ONNX Runtime and kept on disk.

The features of (image, draw) depend on pixels, preprocessing, augmentation and weights, never on
the head. They are computed in shards that are written whole or not at all, so a run that was
killed goes on with the next shard, and a second recipe with the same backbone starts at once.
What was used longest ago is deleted where more than `CACHE_LIMIT` has gathered.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt

from leuko.artifacts import atomic_write, digest_bytes, digest_json
from leuko.errors import OutputError
from leuko.host import versions
from leuko.manifest import Manifest
from leuko.packages import import_onnxruntime
from leuko.parallel import Progress, bounded_map, worker_count
from leuko.recipe import Recipe
from leuko.training.architectures import BACKBONE
from leuko.training.export import features_onnx
from leuko.training.pipeline import PixelSource

__all__ = ["CACHE_LIMIT", "backbone_features", "head_of"]

CACHE_LIMIT: Final = 4 * 2**30
"""Bytes of features that are kept; those of the published experiment take 0.2 GB."""

Network = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""From pixels (n, h, w, 3) to features (n, d)."""

_SHARD: Final = 1024
_BATCH: Final = 16


def backbone_features(
    model: keras.Model,
    source: PixelSource,
    rows: npt.NDArray[np.int64],
    *,
    manifest: Manifest,
    recipe: Recipe,
    cache: Path,
    threads: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    stage: str = "features",
) -> npt.NDArray[np.float32]:
    """Run everything below the head once over a list of (image, draw).

    Parameters
    ----------
    model : keras.Model
        With a frozen backbone.
    source : PixelSource
        Makes the pixels.
    rows : (n, 2) int64
        Which images and draws.
    manifest : Manifest
        Of the source's files, for the cache's key.
    recipe : Recipe
        Its preprocessing, augmentation and seed, for the key.
    cache : Path
        Folder for the shards.
    threads : int, optional
        For decoding and for the network; as many as this process may use when None.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.
    say : callable, optional
        Called with a sentence where the folder cannot be written to; then nothing is kept.
    stage : str
        First argument of `progress`.

    Returns
    -------
    (n, d) float32
        Pooled features.
    """
    trunk = _trunk_of(model)
    data = features_onnx(trunk)
    count = worker_count(threads)
    augment = asdict(recipe.augment) if (rows[:, 1] >= 0).any() else None
    key = digest_json(
        {
            "network": digest_bytes(data),
            "images": manifest.digest,
            "preprocess": recipe.preprocess.to_dict(),
            "augment": augment,
            "seed": source.seed if augment else None,
            "rows": digest_bytes(np.ascontiguousarray(rows).tobytes()),
            "versions": versions(),
        }
    )
    folder = cache / "features" / key[:32]
    network: Network | None = None
    shards, is_kept = [], True
    for start in range(0, len(rows), _SHARD):
        part = rows[start : start + _SHARD]
        path = folder / f"{start // _SHARD:05d}.npz"
        values = _read_shard(path, len(part), int(trunk.output.shape[-1]))
        if values is None:
            if network is None:
                network = _network(data, count)
            values = _run(network, source, part, count)
            is_kept = is_kept and _keep(path, values, say or (lambda _: None))
        shards.append(values)
        if progress is not None:
            progress(stage, min(start + _SHARD, len(rows)), len(rows))
    with contextlib.suppress(OSError):  # another run prunes too, or we may only read
        os.utime(folder)
        if network is not None:
            _prune(folder)
    return np.concatenate(shards)


def head_of(model: keras.Model) -> keras.Model:
    """Give the layers above the pooled features as a model of their own.

    Parameters
    ----------
    model : keras.Model
        From `build_model`, with a backbone.

    Returns
    -------
    keras.Model
        Shares its layers, and so its weights, with `model`.
    """
    features = keras.Input(model.get_layer("pool").output.shape[1:], name="features")
    x: Any = features
    names = [layer.name for layer in model.layers]
    for name in names[names.index("pool") + 1 :]:
        x = model.get_layer(name)(x)
    return keras.Model(features, x, name="head")


def _prune(newest: Path) -> None:
    """Delete the features beside `newest` that were used longest ago, down to `CACHE_LIMIT`."""
    others = [entry for entry in newest.parent.iterdir() if entry.is_dir() and entry != newest]
    total = 0
    for folder in [newest, *sorted(others, key=lambda entry: entry.stat().st_mtime, reverse=True)]:
        total += sum(file.stat().st_size for file in folder.iterdir())
        if total > CACHE_LIMIT and folder != newest:
            shutil.rmtree(folder, ignore_errors=True)


def _trunk_of(model: keras.Model) -> keras.Model:
    """Pixels to pooled features."""
    model.get_layer(BACKBONE)
    return keras.Model(model.input, model.get_layer("pool").output, name="trunk")


def _read_shard(path: Path, rows: int, width: int) -> npt.NDArray[np.float32] | None:
    """Open a finished shard; None when it is missing or not what it should be."""
    try:
        # An .npz has a checksum for what is in it, which np.load compares.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            values: npt.NDArray[np.float32] = arrays["features"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    if values.shape != (rows, width) or values.dtype != np.float32:
        return None
    return values if np.isfinite(values).all() else None


def _keep(path: Path, values: npt.NDArray[np.float32], say: Callable[[str], None]) -> bool:
    """Write a shard; where that cannot be, say so and go on without."""
    try:
        with atomic_write(path) as file:
            np.savez(file, allow_pickle=False, features=values)
    except OutputError as error:
        say(f"Features are not kept for another run: {error} --cache names one.")
        return False
    return True


def _network(data: bytes, threads: int) -> Network:
    """Open a graph with ONNX Runtime."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: np.asarray(session.run(None, {name: pixels})[0], np.float32)


def _run(
    network: Network,
    source: PixelSource,
    rows: npt.NDArray[np.int64],
    threads: int,
) -> npt.NDArray[np.float32]:
    """Decode on threads, infer in batches of one shape."""
    pixels = bounded_map(
        lambda row: source(int(row[0]), int(row[1])), rows, workers=threads, ahead=3 * _BATCH
    )
    values = []
    waiting: list[npt.NDArray[np.uint8]] = []
    for image in pixels:
        waiting.append(image)
        if len(waiting) == _BATCH:
            values.append(network(np.stack(waiting).astype(np.float32)))
            waiting = []
    if waiting:
        padded = np.zeros((_BATCH, *waiting[0].shape), np.float32)
        padded[: len(waiting)] = np.stack(waiting)
        values.append(network(padded)[: len(waiting)])
    return np.concatenate(values).astype(np.float32)
