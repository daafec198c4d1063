"""A bundle opened with ONNX Runtime: images in, a `PredictionTable` out, in input order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from leuko.artifacts import digest_bytes
from leuko.bundle import Goldens, ModelBundle, golden_pictures
from leuko.errors import BundleError, ImageError
from leuko.imaging import PreprocessSpec, check_size, decode_image
from leuko.parallel import bounded_map, worker_count
from leuko.prediction import DECIMALS, Prediction, PredictionTable
from leuko.runtime.graph import check_tensors
from leuko.runtime.sources import Source, file_source
from leuko.taxonomy import CLASSES

__all__ = ["Classifier", "OnnxClassifier", "load", "make_goldens", "zoo_models"]

Pixels = npt.NDArray[np.uint8]

BATCH: Final = 16
"""Every run of the network has this many rows, padded with black where images are fewer.

One shape means one order of summation: an answer does not depend on its neighbours.
"""

_GOLDEN_TOLERANCE: Final = 1e-3


class Classifier(Protocol):
    """What evaluation, the command line and every other door ask of a model."""

    @property
    def name(self) -> str:
        """Short name."""
        ...

    @property
    def digest(self) -> str:
        """Digest of the bundle, 64 hexadecimal digits."""
        ...

    def predict(self, paths: Iterable[str | os.PathLike[str]]) -> PredictionTable:
        """Classify image files, in order."""
        ...


class OnnxClassifier:
    """A bundle ready to answer.

    Parameters
    ----------
    bundle : ModelBundle
        Its goldens are asked once.
    threads : int, optional
        For decoding and for the network; as many as this process may use when None.

    Raises
    ------
    BundleError
        When the graph cannot be loaded, has other inputs or outputs, keeps weights outside its
        file, or answers the goldens otherwise than promised.
    """

    def __init__(self, bundle: ModelBundle, *, threads: int | None = None) -> None:
        self.bundle = bundle
        self._threads = worker_count(threads)
        self._session = _open_session(bundle.onnx, bundle.preprocess, self._threads)
        self._model = bundle.digest[:12]
        self._check_goldens()

    @property
    def name(self) -> str:
        """Short name of the bundle."""
        return self.bundle.name

    @property
    def digest(self) -> str:
        """Digest of the bundle, 64 hexadecimal digits."""
        return self.bundle.digest

    def predict_pixels(self, inputs: Pixels) -> npt.NDArray[np.float64]:
        """Run the network on inputs that are already cut and resized.

        Parameters
        ----------
        inputs : (N, h, w, 3) uint8, RGB
            Of the bundle's input size.

        Returns
        -------
        (N, 5) float64
            Probabilities in class order, rounded to 6 decimals.
        """
        return run_padded(self._session, inputs)

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
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise ImageError(
                    "not-an-image",
                    f"Expected (H, W, 3) uint8 RGB, received {image.shape} {image.dtype}.",
                )
            check_size(*image.shape[:2])
            digest = digest_bytes(np.ascontiguousarray(image).data)
            values = self.predict_pixels(self.bundle.preprocess.apply(image)[None])
            return Prediction.answered("", values[0], digest, self._model)
        row = next(self.stream([file_source(image)]))
        if row.status != "ok":
            raise ImageError(row.reason, row.detail)
        return row

    def predict(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> PredictionTable:
        """Classify image files.

        Parameters
        ----------
        paths : iterable of path-like
            Files.
        progress : callable, optional
            Called with the number of images answered so far.

        Returns
        -------
        PredictionTable
            One row a file, in order; a bad file gets a row with its reason.
        """
        rows = []
        for row in self.stream(file_source(path) for path in paths):
            rows.append(row)
            if progress is not None:
                progress(len(rows))
        return PredictionTable(tuple(rows))

    def stream(self, sources: Iterable[Source]) -> Iterator[Prediction]:
        """Classify sources one after the other, holding only a few at a time.

        Parameters
        ----------
        sources : iterable of Source
            Read, decoded and cut on threads while the network runs.

        Yields
        ------
        Prediction
            In input order.
        """
        read = bounded_map(self._prepare, sources, workers=self._threads, ahead=2 * BATCH)
        while batch := list(islice(read, BATCH)):
            inputs = [item[1] for item in batch if isinstance(item[1], np.ndarray)]
            values = iter(self.predict_pixels(np.stack(inputs)) if inputs else ())
            for name, content, digest, remark in batch:
                if isinstance(content, ImageError):
                    yield Prediction(
                        path=name,
                        status="rejected",
                        reason=content.reason,
                        detail=content.detail,
                        sha256=digest,
                        model=self._model,
                    )
                else:
                    row = Prediction.answered(name, next(values), digest, self._model)
                    yield replace(row, detail=remark) if remark else row

    def _prepare(self, source: Source) -> tuple[str, Pixels | ImageError, str, str]:
        """Read one source: (name, input or error, digest, what was done beyond decoding)."""
        digest = ""
        try:
            data = source.read()
            digest = digest_bytes(data)
            image = decode_image(data)
            inputs = self.bundle.preprocess.apply(image.pixels)
            return source.name, inputs, digest, "; ".join(image.notes)
        except ImageError as error:
            return source.name, error, digest, ""

    def _check_goldens(self) -> None:
        """Ask the golden pictures and compare with what the bundle promises."""
        method = self.bundle.calibration.get("method")
        if method != "none" or self.bundle.thresholds:
            raise BundleError(
                f"{self.name} wants calibration {method!r} and thresholds "
                f"{sorted(self.bundle.thresholds)}, which this Leuko does not apply. Update Leuko "
                "to open it."
            )
        goldens = self.bundle.goldens
        received = _answer(self._session, self.bundle.preprocess, goldens.pictures)
        if received.shape != goldens.probabilities.shape:
            raise BundleError(f"{self.name} has goldens of another shape than its answers.")
        worst = float(np.abs(received - goldens.probabilities).max())
        if not worst <= _GOLDEN_TOLERANCE:
            raise BundleError(
                f"{self.name} does not answer as it did when it was written: a probability on "
                f"its golden pictures is off by {worst:.2g}. The preprocessing or the runtime "
                "changed, or the bundle was altered."
            )


def run_padded(session: Any, inputs: Pixels) -> npt.NDArray[np.float64]:
    """Run a session in batches of one shape.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        One input, one output.
    inputs : (N, h, w, 3) uint8
        Network inputs.

    Returns
    -------
    (N, K) float64
        The output, rounded to 6 decimals.

    Raises
    ------
    BundleError
        When an answer is not a finite number.
    """
    name = session.get_inputs()[0].name
    outputs = []
    for start in range(0, len(inputs), BATCH):
        part = inputs[start : start + BATCH]
        padded = np.zeros((BATCH, *part.shape[1:]), np.float32)
        padded[: len(part)] = part
        outputs.append(session.run(None, {name: padded})[0][: len(part)])
    if not outputs:
        return np.zeros((0, len(CLASSES)))
    values = np.concatenate(outputs).astype(np.float64)
    if not np.isfinite(values).all():
        raise BundleError(
            "The network gave an answer that is not a finite number; its weights are damaged or "
            "its training went astray."
        )
    return np.round(values, DECIMALS)


def make_goldens(onnx: bytes, spec: PreprocessSpec) -> Goldens:
    """Ask a graph the golden pictures, for a bundle that is being written.

    Parameters
    ----------
    onnx : bytes
        The graph.
    spec : PreprocessSpec
        Its preprocessing.

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
    session = _open_session(onnx, spec, worker_count(None))
    return Goldens(pictures, _answer(session, spec, pictures).astype(np.float32))


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
    model: str | os.PathLike[str] = "default", *, threads: int | None = None
) -> OnnxClassifier:
    """Open a classifier.

    Parameters
    ----------
    model : str or path-like
        A name of the zoo, or the path of a bundle or a run folder: a path has a separator or
        ends in ``.zip``.
    threads : int, optional
        See `OnnxClassifier`.

    Returns
    -------
    OnnxClassifier
        Checked and ready.

    Raises
    ------
    BundleError
        When there is no such model, or it is damaged.
    """
    text = os.fspath(model)
    is_path = isinstance(model, os.PathLike) or "/" in text or os.sep in text
    if not is_path and not text.endswith(".zip"):
        models = zoo_models()
        if text not in models:
            known = ", ".join(models) or "none in this install"
            raise BundleError(
                f"There is no bundled model {text!r} (there is: {known}). A path to a bundle or "
                f"a run folder has a separator in it, as in ./{text}."
            )
        return OnnxClassifier(ModelBundle.load(models[text]), threads=threads)
    return OnnxClassifier(ModelBundle.load(text), threads=threads)


def _open_session(onnx: bytes, spec: PreprocessSpec, threads: int) -> Any:
    """Load a graph from bytes and check that it is a five-class image classifier."""
    import onnxruntime

    check_tensors(onnx)
    options = onnxruntime.SessionOptions()
    # Otherwise bytes that look like ONNX Runtime's own format would be read as that.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        inputs, outputs = session.get_inputs(), session.get_outputs()
    except Exception as error:  # ONNX Runtime raises its own kinds for every fault
        first = (str(error).splitlines() or [""])[0][:200]
        raise BundleError(f"The network cannot be loaded: {first}") from error
    wanted = [*spec.size, 3]
    shape = list(inputs[0].shape)[1:] if len(inputs) == 1 else None
    classes = list(outputs[0].shape)[1:] if len(outputs) == 1 else None
    if shape != wanted or classes != [len(CLASSES)]:
        raise BundleError(
            f"The network takes {shape} and gives {classes}; the bundle promises {wanted} and "
            f"[{len(CLASSES)}]."
        )
    kinds = [inputs[0].type, outputs[0].type]
    if kinds != ["tensor(float)", "tensor(float)"]:
        raise BundleError(f"The network must take and give 32-bit floats; received {kinds}.")
    return session


def _answer(session: Any, spec: PreprocessSpec, pictures: Pixels) -> npt.NDArray[np.float64]:
    """Probabilities for raw pictures, the first that a graph is ever asked for."""
    inputs = np.stack([spec.apply(picture) for picture in pictures])
    try:
        answers = run_padded(session, inputs)
    except BundleError:
        raise
    except Exception as error:  # ONNX Runtime raises its own kinds for every fault
        first = (str(error).splitlines() or [""])[0][:200]
        raise BundleError(f"The network cannot be run on {BATCH} pictures: {first}") from error
    if answers.min() < 0 or np.abs(answers.sum(axis=1) - 1).max() > _GOLDEN_TOLERANCE:
        raise BundleError(
            f"The network's answers are no probabilities: {answers[0].tolist()} for one picture. "
            "Export it with a softmax as its last layer."
        )
    return answers
