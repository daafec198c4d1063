"""Two networks on the same pictures: which ones, what each says, and when a variant is refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.bundle import golden_pictures
from leuko.cells.texture import views
from leuko.data.reading import read_labelled
from leuko.data.synth import draw_cell, draw_slide_style
from leuko.errors import BundleError, DataError, ImageError
from leuko.evaluation.metrics import balanced_accuracy, confusion_matrix
from leuko.evaluation.report import evaluate_predictions
from leuko.history import Change, Compared
from leuko.imaging.pictures import decoded
from leuko.imaging.preprocess import PreprocessSpec
from leuko.runtime.sources import expand
from leuko.scheme import ClassScheme
from leuko.source import Source, file_source
from leuko.support.artifacts import digest_bytes, digest_json
from leuko.support.parallel import bounded_map
from leuko.support.reporter import Reporter
from leuko.support.text import rejection

__all__ = [
    "LARGEST_DROP",
    "LEAST_AGREEMENT",
    "TOLERANCE",
    "Answers",
    "Pair",
    "Pictures",
    "Runner",
    "Sample",
    "any_pictures",
    "ask",
    "compare_drawn",
    "draw_sample",
    "judge_accuracy",
    "judge_agreement",
    "labelled_pictures",
    "own_validation",
]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Runner = Callable[[Pixels], Floats]
"""From network inputs (N, h, w, 3) uint8 to probabilities (N, classes)."""

LARGEST_DROP: Final = 0.003
"""A variant whose balanced accuracy is lower by more than this is not written."""

LEAST_AGREEMENT: Final = 0.995
"""Without labels, an int8 variant must give this share of pictures the original's class."""

TOLERANCE: Final = {"float32": 1e-4, "float16": 0.1}
"""Largest difference of a probability on drawn cells, by weights."""

_CALIBRATION: Final = 100
_LEAST_CALIBRATION: Final = 10
_LEAST_COMPARED: Final = 20
_FEW: Final = 100
_CHUNK: Final = 32
_DRAWN_EACH: Final = 2
_DRAWN_SEED: Final = 1883
_DRAWN_SIDE: Final = 128
_DRAWN: Final = ("Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil")
"""Cells that are drawn to compare two networks, whatever these call them."""


@dataclass(frozen=True)
class Pictures:
    """Pictures that may be read: with labels and slides, or without.

    Attributes
    ----------
    sources : tuple of Source
        In order.
    labels : (N,) int64 or None
        Positions in the class order.
    slides : tuple of str
        Empty without labels.
    """

    sources: tuple[Source, ...]
    labels: npt.NDArray[np.int64] | None = None
    slides: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many."""
        return len(self.sources)

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Pictures:
        """Choose some of them.

        Parameters
        ----------
        rows : sequence of int
            Positions.

        Returns
        -------
        Pictures
            In the order given.
        """
        chosen = [int(row) for row in rows]
        labels = None if self.labels is None else self.labels[chosen]
        slides = tuple(self.slides[row] for row in chosen) if self.slides else ()
        return Pictures(tuple(self.sources[row] for row in chosen), labels, slides)


@dataclass(frozen=True)
class Sample:
    """Network inputs that ranges are measured on.

    Attributes
    ----------
    pixels : (M, h, w, 3) uint8, RGB
        The inputs: every view of every picture.
    digests : tuple of str
        Of the files that they were cut from.
    """

    pixels: Pixels
    digests: tuple[str, ...]

    @property
    def told(self) -> tuple[int, str]:
        """What is written about them: how many, and the digest of all."""
        return len(self.digests), digest_json(list(self.digests))


@dataclass(frozen=True)
class Answers:
    """What original and variant said of the same pictures.

    Attributes
    ----------
    original, variant : (n, classes) float64
        Probabilities.
    kept : (n,) int64
        Positions of the pictures that both were asked.
    digests : tuple of str
        Of their files.
    rejected : int
        How many could not be read.
    """

    original: Floats
    variant: Floats
    kept: npt.NDArray[np.int64]
    digests: tuple[str, ...] = ()
    rejected: int = 0

    def compared(self) -> Compared:
        """Set one against the other.

        Returns
        -------
        Compared
            Without labels.
        """
        same = self.original.argmax(axis=1) == self.variant.argmax(axis=1)
        return Compared(
            n=len(self.kept),
            agreement=float(same.mean()),
            largest_difference=float(np.abs(self.original - self.variant).max()),
            rejected=self.rejected,
            digest=digest_json(list(self.digests)) if self.digests else "",
        )


@dataclass(frozen=True)
class Pair:
    """Two networks to be asked the same.

    Attributes
    ----------
    name : str
        Of the original.
    form, weights : str
        Of the variant.
    spec : PreprocessSpec
        Of both.
    original, variant : callable
        From views of pictures, (N, K, h, w, 3) uint8, to probabilities (N, C).
    scheme : ClassScheme
        Of the C classes.
    """

    name: str
    form: str
    weights: str
    spec: PreprocessSpec
    original: Runner
    variant: Runner
    scheme: ClassScheme


def labelled_pictures(
    source: str | os.PathLike[str],
    ignore: tuple[str, ...],
    reporter: Reporter,
    scheme: ClassScheme,
) -> Pictures:
    """Open a folder of class folders, or a CSV with labels.

    Parameters
    ----------
    source : path-like
        The folder or the CSV.
    ignore : tuple of str
        Extra folders to pass over.
    reporter : Reporter
        Called with remarks.
    scheme : ClassScheme
        Of the labels.

    Returns
    -------
    Pictures
        With labels.

    Raises
    ------
    DataError
        When it cannot be used.
    """
    manifest = read_labelled(source, ignore=ignore, scheme=scheme)
    for note in manifest.notes:
        reporter.say(note)
    return Pictures(
        tuple(file_source(file) for file in manifest.files()),
        np.asarray(manifest.labels, np.int64),
        tuple(manifest.slides),
    )


def any_pictures(
    source: str | os.PathLike[str],
    ignore: tuple[str, ...],
    reporter: Reporter,
    scheme: ClassScheme,
) -> Pictures:
    """Open pictures with labels where there are any, so that every class is drawn from.

    Parameters
    ----------
    source : path-like
        As `labelled_pictures` takes it, or a folder, a glob, a ``.zip`` or a ``.txt`` list.
    ignore : tuple of str
        Extra folders to pass over.
    reporter : Reporter
        Called with remarks.
    scheme : ClassScheme
        Of the labels, if there are any.

    Returns
    -------
    Pictures
        With or without labels.

    Raises
    ------
    DataError
        When nothing is there.
    """
    path = Path(os.path.expanduser(source))
    if path.is_dir() or path.suffix.lower() == ".csv":
        try:
            return labelled_pictures(path, ignore, reporter, scheme)
        except DataError:
            if not path.is_dir():
                raise
            reporter.say(
                f"{path} has no class folders that can be read; pictures are drawn at random."
            )
    return Pictures(tuple(expand([os.fspath(path)])))


def draw_sample(
    pictures: Pictures,
    spec: PreprocessSpec,
    rng: np.random.Generator,
    threads: int,
    reporter: Reporter,
) -> tuple[Sample, Pictures]:
    """Draw the pictures that ranges are measured on, evenly by class.

    Parameters
    ----------
    pictures : Pictures
        At most a third of them, and of every class, is taken; 100 at most.
    spec : PreprocessSpec
        Makes network inputs of them.
    rng : numpy.random.Generator
        Draws.
    threads : int
        For reading.
    reporter : Reporter
        Called with remarks.

    Returns
    -------
    sample : Sample
        What was taken.
    left : Pictures
        The others.

    Raises
    ------
    DataError
        When fewer than 10 can be used.
    """
    total = len(pictures)
    if pictures.labels is None:
        chosen = rng.permutation(total)[: min(_CALIBRATION, total // 3)]
    else:
        present = np.unique(pictures.labels)
        each = max(1, _CALIBRATION // len(present))
        rows = [np.flatnonzero(pictures.labels == label) for label in present]
        chosen = np.concatenate([rng.permutation(row)[: min(each, len(row) // 3)] for row in rows])
    chosen = np.sort(chosen)
    pixels, digests = [], []
    for name, digest, content in _read(pictures.take(chosen), spec, threads):
        if isinstance(content, ImageError):
            reporter.say(rejection(name, content.reason, content.detail))
        else:
            pixels.append(content)
            digests.append(digest)
    if len(pixels) < _LEAST_CALIBRATION:
        raise DataError(
            f"An int8 network needs {_LEAST_CALIBRATION} pictures or more that its ranges are "
            f"measured on, a third of those given at most; {total} were given and "
            f"{len(pixels)} could be used. Give more."
        )
    left = np.setdiff1d(np.arange(total), chosen)
    return Sample(np.concatenate(pixels), tuple(digests)), pictures.take(left)


def compare_drawn(pair: Pair) -> Compared:
    """Compare on drawn cells and the golden pictures, where float networks must agree closely.

    Parameters
    ----------
    pair : Pair
        The networks.

    Returns
    -------
    Compared
        Of both.

    Raises
    ------
    BundleError
        When the variant gives no probabilities, or a float variant differs by more than
        `TOLERANCE`, or in a class that is not in doubt.
    """
    rng = np.random.default_rng(_DRAWN_SEED)
    pictures = list(golden_pictures())
    for _ in range(_DRAWN_EACH):
        style = draw_slide_style(rng)
        pictures += [draw_cell(name, rng, style, size=_DRAWN_SIDE).pixels for name in _DRAWN]
    inputs = np.stack([views(picture, pair.spec) for picture in pictures])
    answers = Answers(pair.original(inputs), pair.variant(inputs), np.arange(len(inputs)))
    drawn = answers.compared()
    if not _are_probabilities(answers.variant, answers.original.shape[1]):
        raise BundleError(
            f"The {pair.weights} {pair.form} network gives no probabilities. Nothing was written."
        )
    limit = TOLERANCE.get(pair.weights)
    if limit is not None:
        ordered = np.sort(answers.original, axis=1)
        clear = ordered[:, -1] - ordered[:, -2] > limit
        moved = answers.original.argmax(axis=1) != answers.variant.argmax(axis=1)
        if not drawn.largest_difference <= limit or (moved & clear).any():
            raise BundleError(
                f"The {pair.weights} {pair.form} network differs from the original by "
                f"{drawn.largest_difference:.2g} in a probability on drawn cells; at most "
                f"{limit:g} is accepted. Nothing was written."
            )
    return drawn


def ask(
    pair: Pair,
    pictures: Pictures,
    threads: int,
    reporter: Reporter,
    *,
    leave: Set[str] = frozenset(),
) -> Answers:
    """Let both networks answer the same pictures, a few at a time.

    Parameters
    ----------
    pair : Pair
        The networks.
    pictures : Pictures
        To be read.
    threads : int
        For reading.
    reporter : Reporter
        Told how far it is, and what a person should know.
    leave : set of str
        Digests of files that are passed over.

    Returns
    -------
    Answers
        Of both.

    Raises
    ------
    DataError
        When not one picture could be used.
    """
    total = len(pictures)
    answers: list[tuple[Floats, Floats]] = []
    kept: list[int] = []
    digests: list[str] = []
    rejected = 0
    rows = enumerate(_read(pictures, pair.spec, threads))
    while chunk := list(islice(rows, _CHUNK)):
        inputs = []
        for row, (name, digest, content) in chunk:
            if isinstance(content, ImageError):
                rejected += 1
                reporter.say(rejection(name, content.reason, content.detail))
            elif digest not in leave:
                inputs.append(content)
                kept.append(row)
                digests.append(digest)
        if inputs:
            stacked = np.stack(inputs)
            answers.append((pair.original(stacked), pair.variant(stacked)))
        reporter.progress("comparing", chunk[-1][0] + 1, total)
    if not answers:
        raise DataError(f"Not one of the {total} pictures to compare on could be used.")
    return Answers(
        np.concatenate([one for one, _ in answers]),
        np.concatenate([other for _, other in answers]),
        np.array(kept, np.int64),
        tuple(digests),
        rejected,
    )


def judge_accuracy(
    pair: Pair, answers: Answers, pictures: Pictures, reporter: Reporter
) -> Compared:
    """Set the variant's balanced accuracy against the original's.

    Parameters
    ----------
    pair : Pair
        The networks.
    answers : Answers
        Of both.
    pictures : Pictures
        With labels.
    reporter : Reporter
        Told how much one more mistake would weigh.

    Returns
    -------
    Compared
        What is written of it.

    Raises
    ------
    BundleError
        When the variant's is lower by more than `LARGEST_DROP`.
    """
    labels = _labels(answers, pictures)
    before, after = (
        float(balanced_accuracy(confusion_matrix(labels, table.argmax(axis=1), table.shape[1])))
        for table in (answers.original, answers.variant)
    )
    if before - after > LARGEST_DROP + 1e-12:
        raise BundleError(
            f"The {pair.weights} {pair.form} variant of {pair.name} has a balanced accuracy of "
            f"{after:.4f} on {len(labels):,} pictures where the original has {before:.4f}; more "
            f"than {100 * LARGEST_DROP:.1f} points lower is refused. Nothing was written."
        )
    names = pair.scheme.names
    counts = np.bincount(labels, minlength=len(names))
    present = counts[counts > 0]
    if present.min() < _FEW:
        reporter.say(
            f"The rarest class has {present.min()} pictures: one more mistake in it moves "
            f"balanced accuracy by {100 / present.min() / len(present):.1f} points."
        )
    return replace(
        answers.compared(),
        classes={name: int(count) for name, count in zip(names, counts, strict=True)},
        balanced_accuracy=Change(before, after),
    )


def own_validation(answers: Answers, pictures: Pictures, scheme: ClassScheme) -> dict[str, Any]:
    """Figures of the variant itself, as a bundle carries them.

    Parameters
    ----------
    answers : Answers
        Of both networks; the variant's are scored.
    pictures : Pictures
        With labels.
    scheme : ClassScheme
        Of them and of the answers.

    Returns
    -------
    dict
        ``split`` (``"check"``), ``n``, ``n_slides``, ``metrics``, ``confusion``.
    """
    slides = pictures.take(answers.kept).slides
    report = evaluate_predictions(
        _labels(answers, pictures), answers.variant, slides, scheme=scheme
    )
    return {
        "split": "check",
        "n": report.n,
        "n_slides": report.n_slides,
        "metrics": {name: asdict(one) for name, one in report.estimates.items()},
        "confusion": report.confusion.tolist(),
    }


def judge_agreement(pair: Pair, answers: Answers) -> Compared:
    """Set the variant's answers against the original's, where nobody knows the truth.

    Parameters
    ----------
    pair : Pair
        The networks.
    answers : Answers
        Of both.

    Returns
    -------
    Compared
        What is written of it.

    Raises
    ------
    DataError
        When there are fewer than 20 pictures.
    BundleError
        When the same class is given to less than `LEAST_AGREEMENT`.
    """
    compared, n = answers.compared(), len(answers.kept)
    if n < _LEAST_COMPARED:
        raise DataError(
            f"Only {n} pictures are left to compare on; {_LEAST_COMPARED} or more are needed "
            "beside those that ranges are measured on. Give more, or --check FOLDER."
        )
    if compared.agreement < LEAST_AGREEMENT:
        raise BundleError(
            f"The {pair.weights} {pair.form} variant of {pair.name} gives "
            f"{100 * compared.agreement:.2f}% of {n:,} pictures the original's class; at least "
            f"{100 * LEAST_AGREEMENT:.1f}% is asked for. Nothing was written. With labelled "
            "pictures, --check FOLDER judges it by its accuracy instead."
        )
    return compared


def _labels(answers: Answers, pictures: Pictures) -> npt.NDArray[np.int64]:
    """True classes of the pictures that were answered."""
    labels = pictures.take(answers.kept).labels
    if labels is None:
        raise DataError("The pictures have no labels, so accuracy cannot be measured on them.")
    return labels


def _are_probabilities(values: Floats, classes: int) -> bool:
    """Whether a table holds probabilities; in 8 bits they sum to 1 within a few steps."""
    return (
        values.ndim == 2
        and values.shape[1] == classes
        and bool(np.isfinite(values).all())
        and float(values.min()) >= -1e-6
        and float(np.abs(values.sum(axis=1) - 1).max()) <= 2e-2
    )


def _read(
    pictures: Pictures, spec: PreprocessSpec, threads: int
) -> Iterator[tuple[str, str, Pixels | ImageError]]:
    """Read, decode and cut pictures: (name, digest, input or error), in order."""

    def look(source: Source) -> tuple[str, str, Pixels | ImageError]:
        digest = ""
        try:
            with source.open() as data:
                digest = digest_bytes(data)
                with decoded(data, spec) as image:
                    return source.name, digest, views(image.pixels, spec)
        except ImageError as error:
            return source.name, digest, error.without_frames()

    return bounded_map(look, pictures.sources, workers=threads)
