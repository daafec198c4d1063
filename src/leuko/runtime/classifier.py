"""A bundle opened with ONNX Runtime: images in, a `PredictionTable` out, in input order."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from leuko.bundle import Goldens, MeasuredLayer, ModelBundle, golden_pictures
from leuko.cells.morphometry import MEASURES
from leuko.cells.texture import FirstView, first_view
from leuko.data.alike import fingerprint
from leuko.errors import BundleError, ImageError, UsageError
from leuko.imaging.decode import check_size
from leuko.imaging.pictures import decoded
from leuko.imaging.preprocess import PreprocessSpec
from leuko.prediction import DECIMALS, Judgement, Prediction, PredictionTable
from leuko.runtime.network.session import BATCH, DEVICES, open_session, run_views
from leuko.runtime.quality import Quality, measure_quality, nucleus_evidence, resolution_of
from leuko.runtime.sources import expand
from leuko.runtime.trust.decide import MoreViews, Trust, feature_distances
from leuko.scheme import ClassScheme
from leuko.source import Source, file_source, opened
from leuko.support.artifacts import digest_bytes, digest_json
from leuko.support.parallel import bounded_map, worker_count

__all__ = ["Observation", "OnnxClassifier", "make_goldens"]

Pixels = npt.NDArray[np.uint8]

PART: Final = 64
"""A thread takes so many sources at a time, if nothing else is said.

Many, as code and weights then stay in a core's cache for longer; decision 14 has the figures.
"""

_PART_BYTES: Final = 32 * 2**20
"""What the inputs of a part may take, unless a single run of the device takes more."""

_GOLDEN_TOLERANCE: Final = 1e-3
_DISTANCE_TOLERANCE: Final = 0.01
_LEAST_DISTANCE: Final = 1e-3

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A picture that was read, cut and measured, or the error that it is none."""

    name: str
    content: FirstView | ImageError
    digest: str
    remark: str = ""
    resolution: float = 0.0
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What is known of one picture before anything is decided on it.

    Attributes
    ----------
    probabilities : (K,) float64
        Neither calibrated nor rounded.
    features : (d,) float32 or None
        What enters the network's last layer; None where the graph does not show it.
    first_probabilities, first_features
        The same of the first view alone; where there is one, they are the same.
    quality : Quality
        Of the network's input.
    nucleus : float
        See `leuko.runtime.quality.nucleus_evidence`.
    """

    probabilities: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32] | None
    first_probabilities: npt.NDArray[np.float64]
    first_features: npt.NDArray[np.float32] | None
    quality: Quality
    nucleus: float


class OnnxClassifier:
    """A bundle ready to answer.

    Parameters
    ----------
    bundle : ModelBundle
        Its goldens are asked once.
    threads : int, optional
        How many images are read, cut and classified at the same time; as many as this process
        has cores when None. Answers do not depend on it.
    device : {"cpu", "cuda"}
        Where the network runs.
    features : bool
        Let the network give what enters its last layer also where the bundle has no use for it,
        for `observe`.
    part : int
        How many images a thread takes at a time, at most; fewer where inputs are large, and at
        first. Small parts answer sooner, large ones are faster.

    Attributes
    ----------
    bundle : ModelBundle
        As given.
    trust : Trust
        What the bundle says on calibration and decisions.
    threads : int
        How many images are worked on at the same time.

    Raises
    ------
    BundleError
        When the graph cannot be loaded, has other inputs or outputs, keeps weights outside its
        file, or answers the goldens otherwise than promised; or when the bundle asks for a
        calibration or a threshold that this version does not know.
    DeviceError
        When the device cannot be used.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        threads: int | None = None,
        device: str = "cpu",
        features: bool = False,
        part: int = PART,
    ) -> None:
        self.bundle = bundle
        self.trust = Trust.of(bundle)
        _check_measured(bundle)
        self.threads = worker_count(threads)
        wanted = features or self.trust.space is not None
        self._session = open_session(
            bundle.onnx, bundle.preprocess, device, classes=len(bundle.scheme), features=wanted
        )
        self._batch = DEVICES[device]
        self._part = max(self._batch, min(part, part_of(bundle.preprocess)))
        self._model = bundle.digest[:12]
        self._preprocessing = digest_json(bundle.preprocess.to_dict())[:12]
        self._check_goldens()

    @property
    def name(self) -> str:
        """Short name of the bundle."""
        return self.bundle.name

    @property
    def digest(self) -> str:
        """Digest of the bundle, 64 hexadecimal digits."""
        return self.bundle.digest

    @property
    def scheme(self) -> ClassScheme:
        """Classes of the answers."""
        return self.bundle.scheme

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How the bundle was made."""
        return self.bundle.provenance

    @property
    def accepts(self) -> bool:
        """Whether any answer can be accepted; see `leuko.runtime.trust.decide.NEVER_CHECKED`."""
        return self.trust.accepts

    def predict_views(self, views: Pixels) -> npt.NDArray[np.float64]:
        """Run the network on inputs that are already cut and resized.

        Parameters
        ----------
        views : (N, V, h, w, 3) uint8, RGB, or (N, h, w, 3)
            Of the bundle's input size: V views of each picture, or one.

        Returns
        -------
        (N, C) float64
            Probabilities in class order, calibrated, rounded to 6 decimals.

        Raises
        ------
        UsageError
            When the bundle also measures the cell: that takes the picture.
        """
        if self.bundle.measured is not None:
            raise UsageError(
                f"{self.name} was fitted to numbers that are measured on the cell, so it must be "
                "given pictures, not inputs that are cut: use predict or predict_one."
            )

        def run(part: Pixels) -> npt.NDArray[np.float64]:
            stacks = part if part.ndim == 5 else part[:, None]
            return self.trust.calibrate(self._run([_stacked(stack) for stack in stacks])[0])

        step = self._part
        if len(views) <= step:
            return run(views)
        parts = (views[start : start + step] for start in range(0, len(views), step))
        return np.concatenate(list(bounded_map(run, parts, workers=self.threads)))

    def predict_one(self, image: str | os.PathLike[str] | Pixels) -> Prediction:
        """Classify one image.

        Parameters
        ----------
        image : path-like or (H, W, 3) uint8 RGB
            A file or its pixels.

        Returns
        -------
        Prediction
            Its `scores` give every class's probability.

        Raises
        ------
        ImageError
            When the image cannot be used.
        """
        if isinstance(image, np.ndarray):
            return self.predict_cells([image])[0]
        row = next(self.stream([file_source(image)]))
        if row.status != "ok":
            raise ImageError(row.reason, row.detail)
        return row

    def predict_cells(
        self, pictures: Sequence[Pixels], *, pixels_per_micrometre: float | None = None
    ) -> list[Prediction]:
        """Classify decoded pictures of one cell each.

        Parameters
        ----------
        pictures : N times (H, W, 3) uint8, RGB
            The cell in the middle.
        pixels_per_micrometre : float, optional
            Their scale, where it is known better than from each by itself.

        Returns
        -------
        list of Prediction
            Without a path; ``sha256`` is that of the pixels.

        Raises
        ------
        ImageError
            When one is no RGB picture.
        """
        spec = self.bundle.preprocess
        if pixels_per_micrometre is not None and spec.view != "centre":
            spec = replace(spec, pixels_per_micrometre=pixels_per_micrometre)
        prepared = []
        for picture in pictures:
            if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
                raise ImageError(
                    "not-an-image",
                    f"Expected (H, W, 3) uint8 RGB, received {picture.shape} {picture.dtype}.",
                )
            check_size(*picture.shape[:2])
            digest = digest_bytes(np.ascontiguousarray(picture).data)
            resolution = resolution_of(spec, picture.shape)
            prepared.append(_Prepared("", first_view(picture, spec), digest, resolution=resolution))
        return self._answers(prepared)

    def predict(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> PredictionTable:
        """Classify image files.

        Parameters
        ----------
        paths : path-like, or iterable of path-like
            Files; or one file, folder, glob, archive or list, see `leuko.runtime.sources.expand`.
        progress : callable, optional
            Called with the number of images answered so far.

        Returns
        -------
        PredictionTable
            One row a file, in order; a bad file gets a row with its reason.
        """
        if isinstance(paths, str | os.PathLike):
            sources = expand([os.fspath(paths)])
        else:
            sources = map(file_source, paths)
        rows = []
        for row in self.stream(sources):
            rows.append(row)
            if progress is not None:
                progress(len(rows))
        return PredictionTable(tuple(rows), self.scheme)

    def stream(self, sources: Iterable[Source]) -> Iterator[Prediction]:
        """Classify sources one after the other, holding only a few at a time.

        Parameters
        ----------
        sources : iterable of Source
            Taken a few at a time by threads that read, decode, cut and classify them.

        Yields
        ------
        Prediction
            In input order, each by itself: see `leuko.runtime.repeats.mark_repeats`.
        """
        yield from self._in_parts(self._classify, sources)

    def observe(self, sources: Iterable[Source]) -> Iterator[Observation | ImageError]:
        """Look at sources without deciding anything, for whoever fits what decides.

        Parameters
        ----------
        sources : iterable of Source
            As for `stream`.

        Yields
        ------
        Observation or ImageError
            In input order; an error for what cannot be used.
        """
        yield from self._in_parts(self._observe, sources)

    def _in_parts(
        self, work: Callable[[list[Source]], list[_Answer]], sources: Iterable[Source]
    ) -> Iterator[_Answer]:
        """Deal sources out to threads, two parts to each under way, and give answers in order."""
        parts = _parts(opened(sources), self._batch, self._part, each=self.threads)
        ahead = 2 * self.threads
        for answers in bounded_map(work, parts, workers=self.threads, ahead=ahead):
            yield from answers

    def _observe(self, sources: list[Source]) -> list[Observation | ImageError]:
        """Look at a few sources on one thread, in every style."""
        prepared = [self._prepare(source) for source in sources]
        seen = [item.content for item in prepared if not isinstance(item.content, ImageError)]
        every, first = run_views(
            self._session,
            seen,
            self.bundle.preprocess.weights,
            batch=self._batch,
            measured=self.bundle.measured,
        )
        rows = iter(range(len(seen)))
        found: list[Observation | ImageError] = []
        for item in prepared:
            content = item.content
            if isinstance(content, ImageError):
                found.append(content)
                continue
            row = next(rows)
            quality = measure_quality(content.pixels, item.resolution)
            features, alone = (
                outputs[1][row].astype(np.float32) if len(outputs) > 1 else None
                for outputs in (every, first)
            )
            nucleus = nucleus_evidence(content.pixels)
            found.append(
                Observation(every[0][row], features, first[0][row], alone, quality, nucleus)
            )
        return found

    def ask(
        self, pictures: Sequence[Pixels], trust: Trust | None = None
    ) -> list[npt.NDArray[np.float64]]:
        """Ask decoded pictures, and give answers and features as they are before any calibration.

        Parameters
        ----------
        pictures : N times (H, W, 3) uint8, RGB
            Before preprocessing.
        trust : Trust, optional
            Says which pictures are shown again; the bundle's own when None.

        Returns
        -------
        list of (N, K) float64
            Probabilities, neither calibrated nor rounded; then features, where they were asked for
            and the graph shows them.
        """
        seen = [first_view(picture, self.bundle.preprocess) for picture in pictures]
        return self._run(seen, trust)

    def _run(self, seen: Sequence[FirstView], trust: Trust | None = None) -> list[npt.NDArray[Any]]:
        """See `run_views`."""
        return run_views(
            self._session,
            seen,
            self.bundle.preprocess.weights,
            batch=self._batch,
            again=(trust or self.trust).again,
            measured=self.bundle.measured,
        )[0]

    def _classify(self, sources: list[Source]) -> list[Prediction]:
        """Classify a few sources on one thread."""
        return self._answers([self._prepare(source) for source in sources])

    def _answers(self, prepared: list[_Prepared]) -> list[Prediction]:
        """Answer a few images that are cut, or say why they were not."""
        seen = [item.content for item in prepared if not isinstance(item.content, ImageError)]
        outputs = self._run(seen)
        values = iter(self.trust.calibrate(outputs[0]))
        distances = self.trust.distances(outputs[1] if len(outputs) > 1 else None)
        far = iter(distances.tolist() if distances is not None else [None] * len(seen))
        rows = []
        for item in prepared:
            content = item.content
            if isinstance(content, ImageError):
                row = Prediction(
                    path=item.name,
                    status="rejected",
                    reason=content.reason,
                    detail=content.detail,
                    sha256=item.digest,
                    model=self._model,
                    preprocessing=self._preprocessing,
                    scheme=self.scheme,
                )
            else:
                found = next(values)
                judgement, quality = self._judge(content.pixels, item.resolution, found, next(far))
                row = replace(
                    Prediction.answered(
                        item.name, found, item.digest, self._model, judgement, self.scheme
                    ),
                    detail=item.remark,
                    preprocessing=self._preprocessing,
                    quality=quality,
                    fingerprint=item.fingerprint,
                )
            rows.append(row)
        return rows

    def _judge(
        self,
        inputs: Pixels,
        resolution: float,
        probabilities: npt.NDArray[np.float64],
        distance: float | None,
    ) -> tuple[Judgement, tuple[tuple[str, float], ...]]:
        """Decide on one answer, where the bundle says how: (judgement, figures of quality)."""
        if not self.trust.active:
            return self.trust.judge(probabilities, distance), ()
        quality = measure_quality(inputs, resolution)
        judgement = self.trust.judge(
            probabilities, distance, quality, partial(nucleus_evidence, inputs)
        )
        return judgement, quality.items()

    def _prepare(self, source: Source) -> _Prepared:
        """Read one source."""
        digest = ""
        try:
            with source.open() as data:
                digest = digest_bytes(data)
                with decoded(data, self.bundle.preprocess) as image:
                    return _Prepared(
                        source.name,
                        first_view(image.pixels, self.bundle.preprocess),
                        digest,
                        remark="; ".join(image.notes),
                        resolution=resolution_of(self.bundle.preprocess, image.pixels.shape),
                        fingerprint=base64.b64encode(fingerprint(image.pixels)).decode(),
                    )
        except ImageError as error:
            return _Prepared(source.name, error.without_frames(), digest)

    def _check_goldens(self) -> None:
        """Ask the golden pictures and compare with what the bundle promises."""
        goldens, space = self.bundle.goldens, self.trust.space
        outputs = _answer(
            self._session,
            self.bundle.preprocess,
            goldens.pictures,
            self._batch,
            again=self.trust.again,
            measured=self.bundle.measured,
        )
        if outputs[0].shape != goldens.probabilities.shape:
            raise BundleError(f"{self.name} has goldens of another shape than its answers.")
        received = self.trust.calibrate(outputs[0])
        worst = float(np.abs(received - goldens.probabilities).max())
        if not worst <= _GOLDEN_TOLERANCE:
            raise BundleError(
                f"{self.name} does not answer as it did when it was written: a probability on "
                f"its golden pictures is off by {worst:.2g}. The preprocessing or the runtime "
                "changed, or the bundle was altered."
            )
        if space is None:
            return
        if len(outputs) < 2 or outputs[1].shape[1:] != space.mean.shape:
            raise BundleError(
                f"{self.name} is damaged: its feature space has {len(space.mean)} features, and "
                "its network gives others or none."
            )
        distances = feature_distances(space, outputs[1])
        off = np.abs(distances / np.maximum(space.goldens, _LEAST_DISTANCE) - 1)
        if not off.max() <= _DISTANCE_TOLERANCE:
            raise BundleError(
                f"{self.name} does not measure as it did when it was written: a distance of its "
                f"golden pictures is off by {off.max():.2%}. The runtime changed, or the bundle "
                "was altered."
            )


def part_of(spec: PreprocessSpec) -> int:
    """How many images a thread may take at a time, for the memory that their inputs take.

    Parameters
    ----------
    spec : PreprocessSpec
        Of the model.

    Returns
    -------
    int
        1 to `PART`.
    """
    inputs = 3 * spec.size[0] * spec.size[1] * len(spec.styles)
    return max(1, min(PART, _PART_BYTES // inputs))


def _parts(
    sources: Iterable[Source], first: int, most: int, *, each: int
) -> Iterator[list[Source]]:
    """Deal sources out: a few to each thread at first, for an early answer, then more at a time."""
    left = iter(sources)
    for number in count():
        part = list(islice(left, min(most, first << min(number // each, 16))))
        if not part:
            return
        yield part


def _stacked(views: Pixels) -> FirstView:
    """Views that are made already, (K, h, w, 3)."""
    return FirstView(np.asarray(views[0]), lambda: [*views[1:]], lambda: None)


def _check_measured(bundle: ModelBundle) -> None:
    """Refuse numbers that this version does not measure, or that the view does not show."""
    if bundle.measured is None:
        return
    if bundle.preprocess.view == "centre":
        raise BundleError(f"{bundle.name} is damaged: it measures a cell that it does not find.")
    if bundle.measured.names != MEASURES:
        raise BundleError(
            f"{bundle.name} asks for numbers that this version of Leuko does not measure. Install "
            "the version that wrote it, or fit the model again."
        )


def make_goldens(
    onnx: bytes, spec: PreprocessSpec, measured: MeasuredLayer | None = None
) -> Goldens:
    """Ask a graph the golden pictures, for a bundle that is being written.

    Parameters
    ----------
    onnx : bytes
        The graph.
    spec : PreprocessSpec
        Its preprocessing.
    measured : MeasuredLayer, optional
        What is added to the graph's answers.

    Returns
    -------
    Goldens
        To put into the bundle.

    Raises
    ------
    BundleError
        When the graph cannot be run or gives no probabilities.
    """
    pictures = golden_pictures()
    session = open_session(onnx, spec)
    answers = _answer(session, spec, pictures, measured=measured)[0]
    return Goldens(pictures, np.round(answers, DECIMALS).astype(np.float32))


def _answer(
    session: Any,
    spec: PreprocessSpec,
    pictures: Pixels,
    batch: int = BATCH,
    *,
    again: MoreViews | None = None,
    measured: MeasuredLayer | None = None,
) -> list[npt.NDArray[np.float64]]:
    """Outputs for raw pictures, the first that a graph is ever asked for."""
    try:
        seen = [first_view(picture, spec) for picture in pictures]
        outputs, _ = run_views(
            session, seen, spec.weights, batch=batch, again=again, measured=measured
        )
    except BundleError:
        raise
    except Exception as error:  # ONNX Runtime raises its own kinds for every fault
        first = (str(error).splitlines() or [""])[0][:200]
        raise BundleError(f"The network cannot be run on {batch} pictures: {first}") from error
    answers = np.round(outputs[0], DECIMALS)
    if answers.min() < 0 or np.abs(answers.sum(axis=1) - 1).max() > _GOLDEN_TOLERANCE:
        raise BundleError(
            f"The network's answers are no probabilities: {answers[0].tolist()} for one picture. "
            "Export it with a softmax as its last layer."
        )
    return outputs
