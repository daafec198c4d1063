"""What initial weights have learned from, known again by a fingerprint of eight bytes a picture.

Weights that have learned the very cells that a network is then measured on give it a head start.
Beside Leuko's backbone and bundled models lie the fingerprints of the pictures that they have
seen: `leuko.data.audit.duplicates.difference_hash` of each, in ascending order. No picture can be
made of them; a copy that was resized or compressed again is still found. Mirrored, turned and
otherwise cut copies are not.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.architectures import ARCHITECTURES, Architecture
from leuko.data.audit.duplicates import difference_hash
from leuko.data.dataset import ImageFacts, Pictures
from leuko.errors import ImageError
from leuko.manifest import Manifest
from leuko.recipe import Recipe
from leuko.support.artifacts import digest_file
from leuko.support.reporter import SILENT, Reporter

__all__ = [
    "FEW",
    "LEARNED",
    "RANDOM",
    "SAME",
    "Start",
    "backbone_path",
    "fingerprints",
    "had_a_head_start",
    "has_learned",
    "seen_in",
    "start_of",
    "were_seen",
]

LEARNED: Final = "Raabin-WBC Train (10,175 cells)"
"""What Leuko's backbone and the bundled models have learned from."""

RANDOM: Final = "random weights"
"""What a network starts from that knows nothing."""

SAME: Final = 4
"""Bits of 64 in which the fingerprint of a copy may differ; see docs/decisions/0029."""

FEW: Final = 0.01
"""Of a set to be measured on, a larger share that was seen makes the measurement one of memory."""

_FINGERPRINTS: Final = "raabin-train.npy"
_DATA: Final = ("59c112797fe9e7a1ef1e90986f07ef2af15b0159c8efae0b2b505e4ec5cb43f9",)
"""Digests of manifests of that data."""

_BLOCK: Final = 256


@dataclass(frozen=True, slots=True)
class Start:
    """What a network knows before it is trained.

    Attributes
    ----------
    weights : str
        Its initial weights and what they have learned, for a person.
    teacher : str
        The same of its teacher; empty without one.
    fingerprints : bool
        Whether there are fingerprints of what one of them has learned from.
    """

    weights: str
    teacher: str = ""
    fingerprints: bool = False

    @property
    def told(self) -> str:
        """Both in one phrase."""
        return self.weights + (f", taught by {self.teacher}" if self.teacher else "")


def start_of(recipe: Recipe, teacher: Mapping[str, Any] | None = None) -> Start:
    """Say what a recipe starts from.

    Parameters
    ----------
    recipe : Recipe
        With the weights that it is trained with.
    teacher : mapping, optional
        Provenance of its teacher, where it has one.

    Returns
    -------
    Start
        What is known of it.
    """
    weights = recipe.model.weights
    named = {"none": RANDOM, "imagenet": "ImageNet"}.get(weights)
    learned = weights == "leuko" or (named is None and _is_backbone(Path(weights).expanduser()))
    if learned:
        narrowed = ", narrowed by least squares" if recipe.model.width != 1 else ""
        named = f"Leuko's backbone{narrowed}, which has learned {LEARNED}"
    elif named is None:
        named = f"the file {Path(weights).name}, of which it is not known what it has learned"
    if teacher is None:
        return Start(named, fingerprints=learned)
    name = recipe.train.teacher.replace("\\", "/").rpartition("/")[2]
    taught = has_learned(teacher)
    has = f"which has learned {LEARNED}" if taught else "of which that is not known"
    return Start(named, f"{name}, {has}", learned or taught)


def has_learned(provenance: Mapping[str, Any]) -> bool:
    """Whether a bundle, or what it was made from, has learned what there are fingerprints of.

    Parameters
    ----------
    provenance : mapping
        Of the bundle; free text, so nothing in it is sure.

    Returns
    -------
    bool
        True for the bundled models, for what was trained from Leuko's backbone and for what such a
        model has taught.
    """
    start = provenance.get("start")
    if isinstance(start, Mapping) and start.get("fingerprints") is True:
        return True
    recipe = provenance.get("recipe")
    model = recipe.get("model") if isinstance(recipe, Mapping) else None
    weights = model.get("weights") if isinstance(model, Mapping) else None
    return provenance.get("source_digest") in _DATA or weights == "leuko"


def had_a_head_start(seen: int, total: int) -> str:
    """Say that a network knew its data before it was trained.

    Parameters
    ----------
    seen, total : int
        Training and validation images that were among what it had learned from, and all.

    Returns
    -------
    str
        A sentence for a person.
    """
    return (
        f"A head start: {seen:,} of these {total:,} training and validation images are among those "
        "that it had learned from before, so its validation reads too high and its limits of "
        "confidence promise too much."
    )


def were_seen(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Find the pictures that Leuko's backbone and bundled models have learned from.

    Parameters
    ----------
    hashes : (N,) uint64
        From `leuko.data.audit.duplicates.difference_hash`.

    Returns
    -------
    (N,) bool
        True where a fingerprint differs in at most `SAME` bits.
    """
    known, found = _fingerprints(), np.zeros(len(hashes), bool)
    for start in range(0, len(hashes), _BLOCK):
        block = slice(start, start + _BLOCK)
        found[block] = (np.bitwise_count(hashes[block, None] ^ known) <= SAME).any(axis=1)
    return found


def seen_in(
    manifest: Manifest,
    pictures: Pictures,
    *,
    reporter: Reporter = SILENT,
    stage: str = "comparing",
) -> int:
    """Count the pictures of a set that Leuko's backbone and bundled models have learned from.

    Parameters
    ----------
    manifest : Manifest
        What is no picture in it is passed over.
    pictures : Pictures
        Decodes them, but those that it has decoded before.
    reporter : Reporter, optional
        Told how far it is, and what a person should know.
    stage : str
        What it is called to the reporter.

    Returns
    -------
    int
        See `were_seen`.
    """
    facts = pictures.facts(manifest.files(), reporter=reporter, stage=stage)
    return int(were_seen(fingerprints(facts)).sum())


def fingerprints(facts: Iterable[ImageFacts | ImageError]) -> npt.NDArray[np.uint64]:
    """Fingerprints of the images that could be decoded.

    Parameters
    ----------
    facts : iterable of ImageFacts or ImageError
        From `leuko.data.dataset.Pictures.facts`.

    Returns
    -------
    (N,) uint64
        In the same order.
    """
    hashes = [difference_hash(one.thumbnail) for one in facts if isinstance(one, ImageFacts)]
    return np.array(hashes, dtype=np.uint64)


@functools.lru_cache(maxsize=1)
def _fingerprints() -> npt.NDArray[np.uint64]:
    """Those of the package; none where this install has no bundled models."""
    file = _zoo() / _FINGERPRINTS
    return np.load(file, allow_pickle=False) if file.is_file() else np.zeros(0, np.uint64)


def _is_backbone(file: Path) -> bool:
    """Whether a file is a backbone of Leuko's own under another name."""
    own = [backbone_path(network) for network in ARCHITECTURES.values() if network.bundled]
    return file.is_file() and digest_file(file) in [digest_file(p) for p in own if p.is_file()]


def backbone_path(network: Architecture) -> Path:
    """Where Leuko's own backbone of an architecture lies.

    Parameters
    ----------
    network : Architecture
        One that Leuko has weights of its own for.

    Returns
    -------
    Path
        A ``.npz``; no file where this install has no bundled models.
    """
    return _zoo() / network.bundled


def _zoo() -> Path:
    """Where bundled models lie."""
    return Path(str(resources.files("leuko") / "zoo"))
