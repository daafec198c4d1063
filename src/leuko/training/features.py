"""A frozen backbone is run once: its features are computed by ONNX Runtime and kept on disk.

The features of (image, draw) depend on pixels, preprocessing, augmentation and weights, never on
the head. They are computed in shards that are written whole or not at all, so a run that was
killed goes on with the next shard, and a second recipe with the same backbone starts at once.
What was used longest ago is deleted where more than `CACHE_LIMIT` has gathered.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import numpy.typing as npt

from leuko.errors import OutputError
from leuko.runtime.network.session import load_graph
from leuko.support.artifacts import atomic_write, digest_bytes, digest_json
from leuko.support.host import versions
from leuko.support.parallel import bounded_map, worker_count
from leuko.support.reporter import SILENT, Reporter
from leuko.training.architectures import FEATURES
from leuko.training.pipeline import PixelSource
from leuko.training.to_onnx import features_onnx

__all__ = ["CACHE_LIMIT", "FeatureCache", "Trunk", "head_of"]

CACHE_LIMIT: Final = 4 * 2**30
"""Bytes of features that are kept; those of the published experiment take 0.2 GB."""

Network = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""From pixels (n, h, w, 3) to features (n, d)."""

_SHARD: Final = 1024
_BATCH: Final = 16


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """Keeps features for another run.

    Attributes
    ----------
    folder : Path
        Where to; the features lie in its folder ``features``.
    reporter : Reporter, optional
        Told in a sentence where the folder cannot be written to; then nothing is kept.
    """

    folder: Path
    reporter: Reporter = SILENT

    def shards(self, key: str) -> Path:
        """Folder of the shards of one key."""
        return self.folder / "features" / key[:32]

    def keep(self, path: Path, values: npt.NDArray[np.float32]) -> bool:
        """Write a shard; where that cannot be, say so and go on without."""
        try:
            with atomic_write(path) as file:
                np.savez(file, allow_pickle=False, features=values)
        except OutputError as error:
            self.reporter.say(f"Features are not kept for another run: {error} --cache names one.")
            return False
        return True


class Trunk:
    """Everything below the head of a network with a frozen backbone, in ONNX Runtime.

    Parameters
    ----------
    model : keras.Model
        With a frozen backbone.
    cache : FeatureCache
        Where features are kept.
    threads : int, optional
        For decoding and for the network; as many as this process may use when None.
    """

    def __init__(
        self, model: keras.Model, cache: FeatureCache, *, threads: int | None = None
    ) -> None:
        trunk = keras.Model(model.input, model.get_layer(FEATURES).output, name="trunk")
        self._width = int(trunk.output.shape[-1])
        self._onnx = features_onnx(trunk)
        self._cache = cache
        self._threads = worker_count(threads)

    @functools.cached_property
    def _network(self) -> Network:
        return _opened(self._onnx, self._threads)

    def features(
        self,
        source: PixelSource,
        rows: npt.NDArray[np.int64],
        *,
        images: str,
        reporter: Reporter = SILENT,
        stage: str = "features",
    ) -> npt.NDArray[np.float32]:
        """Run it once over a list of (image, draw), but for what was kept.

        Parameters
        ----------
        source : PixelSource
            Makes the pixels.
        rows : (n, 2) int64
            Which images and draws.
        images : str
            Digest of the source's files.
        reporter : Reporter, optional
            Told how far it is, and what a person should know.
        stage : str
            What it is called to the reporter.

        Returns
        -------
        (n, d) float32
            Pooled features.
        """
        folder = self._cache.shards(self._key(source, rows, images))
        shards, is_kept, is_new = [], True, False
        for start in range(0, len(rows), _SHARD):
            part = rows[start : start + _SHARD]
            path = folder / f"{start // _SHARD:05d}.npz"
            values = _read_shard(path, len(part), self._width)
            if values is None:
                is_new = True
                values = _run(self._network, source, part, self._threads)
                is_kept = is_kept and self._cache.keep(path, values)
            shards.append(values)
            reporter.progress(stage, min(start + _SHARD, len(rows)), len(rows))
        with contextlib.suppress(OSError):  # another run prunes too, or we may only read
            os.utime(folder)
            if is_new:
                _prune(folder)
        return np.concatenate(shards)

    def _key(self, source: PixelSource, rows: npt.NDArray[np.int64], images: str) -> str:
        """Digest of everything that features depend on."""
        augment = asdict(source.augment) if (rows[:, 1] >= 0).any() else None
        return digest_json(
            {
                "network": digest_bytes(self._onnx),
                "images": images,
                "preprocess": source.spec.to_dict(),
                "augment": augment,
                "seed": source.seed if augment else None,
                "rows": digest_bytes(np.ascontiguousarray(rows).tobytes()),
                "versions": versions(),
            }
        )


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
    features = keras.Input(model.get_layer(FEATURES).output.shape[1:], name="features")
    x: Any = features
    names = [layer.name for layer in model.layers]
    for name in names[names.index(FEATURES) + 1 :]:
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


def _opened(data: bytes, threads: int) -> Network:
    """Open a graph with ONNX Runtime."""
    session = load_graph(data, "The backbone cannot be opened", threads=threads)
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
