"""``leuko export``: another precision or another runtime, compared before anything is written.

A variant is judged by what it answers. With labelled pictures its balanced accuracy is set
against the original's on the same rows; without labels the answers themselves are compared, on
real pictures where there are any and on drawn cells otherwise. What was found is written into
the variant, and the figures of the original are never carried over as its own.
"""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.bundle import ModelBundle, check_room, golden_pictures
from leuko.cells.texture import views
from leuko.errors import OutputError, UsageError
from leuko.formats.check import (
    Pair,
    Pictures,
    Runner,
    Sample,
    any_pictures,
    ask,
    compare_drawn,
    draw_sample,
    judge_accuracy,
    judge_agreement,
    labelled_pictures,
    own_validation,
)
from leuko.formats.graph import open_session, to_float16
from leuko.formats.int8 import quantize
from leuko.formats.outputs import OUTPUT_FORMATS, OutputFormat
from leuko.history import Variant
from leuko.runtime.cards import with_card
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.network.average import over_views
from leuko.runtime.network.session import run_padded
from leuko.runtime.trust.calibrate import bare_network, with_trust
from leuko.runtime.zoo import load
from leuko.support.artifacts import RESEARCH_USE, atomic_folder, digest_bytes, json_text, schema
from leuko.support.host import versions
from leuko.support.parallel import bounded_map, worker_count
from leuko.support.reporter import SILENT, Reporter

__all__ = ["WEIGHTS", "ExportRequest", "Exported", "export_model"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

WEIGHTS: Final = ("float32", "float16", "int8")
"""How its numbers can be kept."""

_MOST_COMPARED: Final = 2000
_PART: Final = 8
_NOTE: Final = "export.json"
_BESIDE: Final = (_NOTE, "goldens.npz", "card.md")


@dataclass(frozen=True)
class ExportRequest:
    """What to write, and what to compare it on.

    Attributes
    ----------
    form : str
        What to write, a name in `leuko.formats.outputs.OUTPUT_FORMATS`.
    weights : {"float32", "float16", "int8"}
        How to keep its numbers.
    check : path-like or None
        Labelled pictures, a folder of class folders or a CSV. The variant is refused when its
        balanced accuracy on them is lower by more than 0.3 points.
    calibrate : path-like or None
        Pictures that int8 ranges are measured on, labelled or not. By default up to 100 of
        `check`, which are then not checked with. Without `check`, the pictures that are left
        over must get the same class in 99.5% of cases.
    ignore : tuple of str
        Extra folders to pass over.
    seed : int
        Of the choice of pictures.
    """

    form: str = "onnx"
    weights: str = "float32"
    check: str | os.PathLike[str] | None = None
    calibrate: str | os.PathLike[str] | None = None
    ignore: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be asked for."""
        if self.form not in OUTPUT_FORMATS:
            known = ", ".join(OUTPUT_FORMATS)
            raise UsageError(f"Unknown format {self.form!r}; known are {known}.")
        if self.weights not in WEIGHTS:
            raise UsageError(f"Unknown weights {self.weights!r}; known are {', '.join(WEIGHTS)}.")
        if self.weights == "int8" and self.check is None and self.calibrate is None:
            raise UsageError(
                "An int8 network is made with real pictures, and compared on them before it is "
                "written. Give --check FOLDER (labelled) or --calibrate FOLDER (any cells)."
            )
        if self.weights != "int8" and self.calibrate is not None:
            raise UsageError("--calibrate is for --int8; other networks have no ranges to measure.")

    @property
    def output(self) -> OutputFormat:
        """The entry of its format."""
        return OUTPUT_FORMATS[self.form]


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares.

    Attributes
    ----------
    path : Path
        The bundle, or the folder.
    variant : Variant
        What is written into the variant too.
    digest : str
        Of the new bundle, or of the network's file for other formats.
    size, source_size : int
        Bytes of the network, and of the original's.
    """

    path: Path
    variant: Variant
    digest: str
    size: int
    source_size: int


@dataclass(frozen=True)
class _Given:
    """The pictures of a request, dealt out.

    Attributes
    ----------
    sample : Sample or None
        For the ranges of 8 bits.
    labelled : Pictures or None
        To measure accuracy on.
    rest : Pictures or None
        To compare answers on where there are no labels.
    """

    sample: Sample | None = None
    labelled: Pictures | None = None
    rest: Pictures | None = None


@dataclass(frozen=True)
class _Converted:
    """A network in its new form: its file, how to ask it, and a bundle around it."""

    file: str
    data: bytes
    run: Runner
    made: ModelBundle | None = None


def export_model(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    request: ExportRequest | None = None,
    *,
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> Exported:
    """Write a model in another form, if it still answers as it did.

    Parameters
    ----------
    model : str or path-like
        A bundled model's name, a bundle or a run folder.
    out : path-like, optional
        For ``onnx`` a bundle, a folder or a ``.zip``; otherwise a folder. By default a name made
        of the model's, in the current folder.
    request : ExportRequest, optional
        A plain copy when None.
    workers : int, optional
        Threads.
    reporter : Reporter, optional
        Told how far it is, and what a person should know.

    Returns
    -------
    Exported
        What was written.

    Raises
    ------
    UsageError
        When a format that is written from Keras is wanted of what is no run folder with its Keras
        model.
    BundleError
        When there is no such model, or the variant does not answer as the original does: then
        nothing is written.
    DataError
        When there are too few pictures, or not one can be read.
    OutputError
        When something else stands at `out`, or it cannot be written.
    TrainingError
        When the network cannot be converted.
    MissingExtraError
        When a package that the conversion needs is not installed.
    """
    request, threads = request or ExportRequest(), worker_count(workers)
    classifier = load(model, threads=threads)
    bundle = classifier.bundle
    _check_source(bundle)
    target = _target(bundle, model, out, request)
    keras = _keras_file(bundle, model, request.output)
    work = _Work(request, classifier, threads, reporter)
    given = work.pictures()
    converted = work.convert(keras, given.sample)
    variant, validation = work.compare(converted, given)
    if converted.made is not None:
        return _write_bundle(bundle, converted, target, variant, validation)
    return _write_folder(bundle, converted, target, variant)


class _Work:
    """One export: what was asked for, of which model, and who is told."""

    def __init__(
        self,
        request: ExportRequest,
        classifier: OnnxClassifier,
        threads: int,
        reporter: Reporter,
    ) -> None:
        self.request, self.classifier, self.bundle = request, classifier, classifier.bundle
        self._threads, self._reporter = threads, reporter
        self._rng = np.random.default_rng([request.seed, 31])

    def pictures(self) -> _Given:
        """Open the pictures that were given, and draw those for 8 bits."""
        request, scheme, reporter = self.request, self.bundle.scheme, self._reporter
        labelled = others = None
        if request.check is not None:
            labelled = labelled_pictures(request.check, request.ignore, reporter, scheme)
        if request.calibrate is not None:
            others = any_pictures(request.calibrate, request.ignore, reporter, scheme)
        source = labelled if others is None else others
        if request.weights != "int8" or source is None:
            return _Given(labelled=labelled)
        spec = self.bundle.preprocess
        sample, left = draw_sample(source, spec, self._rng, self._threads, reporter)
        return _Given(sample, left) if others is None else _Given(sample, labelled, left)

    def convert(self, keras: Path | None, sample: Sample | None) -> _Converted:
        """Make the new network; of ONNX the bundle around it, too."""
        output, weights, spec = self.request.output, self.request.weights, self.bundle.preprocess
        network = self._rounded(sample) if keras is None else keras
        if isinstance(network, bytes) and not output.writer:
            made = self.bundle if weights == "float32" else _with_network(self.bundle, network)
            run = OnnxClassifier(made, threads=self._threads).predict_views
            return _Converted(output.file, network, run, made)
        pixels = None if sample is None else sample.pixels
        data, run = output.find_writer()(network, spec.size, weights, pixels, self._threads)
        return _Converted(output.file, data, over_views(run, spec.weights))

    def _rounded(self, sample: Sample | None) -> bytes:
        """The bundle's own graph, with numbers kept as was asked for."""
        onnx = self.bundle.onnx
        if self.request.weights == "float16":
            return to_float16(onnx)
        return onnx if sample is None else quantize(onnx, sample.pixels)

    def compare(self, converted: _Converted, given: _Given) -> tuple[Variant, dict[str, Any]]:
        """Set the variant against its original; and its own figures, where there are labels."""
        request, bundle, pair = self.request, self.bundle, self._pair(converted)
        variant = Variant(
            form=request.form,
            weights=request.weights,
            source_name=bundle.name,
            source_digest=bundle.digest,
            source_validation=bundle.validation,
            drawn=compare_drawn(pair),
            calibration=None if given.sample is None else given.sample.told,
            versions=_versions(),
        )
        leave = set(given.sample.digests) if given.sample is not None else set()
        asked = partial(ask, pair, threads=self._threads, reporter=self._reporter, leave=leave)
        if given.labelled is not None:
            answers = asked(given.labelled)
            check = judge_accuracy(pair, answers, given.labelled, self._reporter)
            validation = own_validation(answers, given.labelled, bundle.scheme)
            return replace(variant, check=check), validation
        if given.rest is not None:
            chosen = np.sort(self._rng.permutation(len(given.rest))[:_MOST_COMPARED])
            agreement = judge_agreement(pair, asked(given.rest.take(chosen)))
            return replace(variant, agreement=agreement), {}
        return variant, {}

    def _pair(self, converted: _Converted) -> Pair:
        """What is compared, which is what is written.

        A bundle answers calibrated, and looks again where it would; elsewhere there is the network
        alone.
        """
        bundle, spec = self.bundle, self.bundle.preprocess
        form, weights = self.request.form, self.request.weights
        original: Runner = self.classifier.predict_views
        if converted.made is None:
            original = over_views(_graph_runner(bundle.onnx, self._threads), spec.weights)
        return Pair(bundle.name, form, weights, spec, original, converted.run, bundle.scheme)


def _check_source(bundle: ModelBundle) -> None:
    """Refuse what is more than its network, and to round what has eight bits already.

    Sixteen bits are wide enough to go on from.
    """
    if bundle.measured is not None:
        raise UsageError(
            f"{bundle.name} was fitted to numbers that Leuko measures on the cell, which no other "
            "form of its network would. Fit the network alone, with leuko adapt --no-measure, and "
            "export that; or export the model that it was made from, and fit the export."
        )
    variant = bundle.provenance.get("variant", {})
    if variant.get("weights") == "int8":
        original = variant.get("source", {}).get("name", "model")
        raise UsageError(
            f"{bundle.name} is int8 already, and rounding twice loses twice. Export from the "
            f"{original} that it was made of, which is a run of its recipe or another bundle."
        )


def _keras_file(
    bundle: ModelBundle, model: str | os.PathLike[str], output: OutputFormat
) -> Path | None:
    """Find the Keras model, where a format is written from it."""
    if not output.from_keras:
        return None
    path = Path(os.path.expanduser(model)) / "model.keras"
    if not path.is_file():
        raise UsageError(
            f"There is no {output.title} of {bundle.name}: it is written from the model.keras of "
            f"a run folder that leuko train wrote, and {os.fspath(model)} has none."
        )
    return path


def _target(
    bundle: ModelBundle,
    model: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    request: ExportRequest,
) -> Path:
    """Where to write, or a sentence why not there."""
    is_folder = bool(request.output.writer)
    if out is None:
        ending = f"-{request.form}" if is_folder else ".zip"
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_"
                       for letter in bundle.name)  # fmt: skip
        path = Path(f"{name}-{request.weights}{ending}")
    else:
        path = Path(os.path.expanduser(out))
    if path.suffix.lower() == ".zip" and is_folder:
        raise UsageError(f"{request.form} is written as a folder; {path} is the name of a zip.")
    if path.exists() and Path(model).exists():
        source = Path(os.path.realpath(model))
        if Path(os.path.realpath(path)) in (source, source / "bundle"):
            raise OutputError(f"{path} is the model itself. Choose another --out.")
    if not is_folder:
        ModelBundle.check_place(path)
        return path
    check_room(path)
    if path.is_dir():
        _check_folder(path)
    return path


def _check_folder(path: Path) -> None:
    """Refuse to replace a folder of another kind."""
    there = {place.name for place in path.iterdir()}
    others = there - {*_BESIDE, *(one.file for one in OUTPUT_FORMATS.values() if one.writer)}
    if others or (there and _NOTE not in there):
        raise OutputError(
            f"{path} holds other things than an exported model, such as {min(others or there)}; "
            "writing would replace them. Choose another --out."
        )


def _versions() -> dict[str, str]:
    """Versions of what the variant depends on."""
    found = versions()
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["onnx"] = metadata.version("onnx")
    return found


def _graph_runner(onnx: bytes, threads: int) -> Runner:
    """Ask an ONNX graph as the runtime does: each thread a few pictures, by itself."""
    run = partial(run_padded, open_session(onnx))

    def answer(pixels: Pixels) -> Floats:
        parts = (pixels[start : start + _PART] for start in range(0, len(pixels), _PART))
        return np.concatenate(list(bounded_map(run, parts, workers=threads)))

    return answer


def _write_bundle(
    bundle: ModelBundle,
    converted: _Converted,
    target: Path,
    variant: Variant,
    validation: dict[str, Any],
) -> Exported:
    """Write an ONNX variant as a bundle of its own; float32 is the bundle as it was."""
    made = converted.made or bundle
    if made is not bundle:
        made = _told(made, f"{bundle.name}-{variant.weights}", variant, validation)
    made.save(target)
    return Exported(target, variant, made.digest, len(converted.data), len(bundle.onnx))


def _told(
    bundle: ModelBundle, name: str, variant: Variant, validation: dict[str, Any]
) -> ModelBundle:
    """A bundle that says what it was made from, and no figures but its own."""
    provenance = {**bundle.provenance, "variant": variant.to_dict()}
    return with_card(replace(bundle, name=name, provenance=provenance, validation=validation))


def _with_network(bundle: ModelBundle, onnx: bytes) -> ModelBundle:
    """Put another network into a bundle: goldens anew, calibration and limits as they were."""
    bare = bare_network(replace(bundle, onnx=onnx))
    classifier = OnnxClassifier(bare, features=bundle.space is not None)
    return with_trust(classifier, bundle.calibration, bundle.thresholds, bundle.space)


def _write_folder(
    bundle: ModelBundle, converted: _Converted, target: Path, variant: Variant
) -> Exported:
    """Write a network for another runtime, with what is needed to use it rightly."""
    spec = bundle.preprocess
    pictures = golden_pictures()
    inputs = np.stack([views(picture, spec) for picture in pictures])
    answers = converted.run(inputs).astype(np.float32)
    arrays = io.BytesIO()
    np.savez_compressed(arrays, allow_pickle=False, pictures=pictures, probabilities=answers)
    files = {
        converted.file: converted.data,
        "goldens.npz": arrays.getvalue(),
        "card.md": _told(bundle, bundle.name, variant, {}).card.encode(),
    }
    document = {
        "schema": schema("export"),
        "research_use": RESEARCH_USE,
        "name": bundle.name,
        "variant": variant.to_dict(),
        "classes": list(bundle.scheme.names),
        "scheme": bundle.scheme.to_dict(),
        "preprocess": spec.to_dict(),
        "input": {
            "name": "pixels",
            "shape": [1, *spec.size, 3],
            "type": "float32",
            "holds": "RGB, 0 to 255, cut and resized as preprocess says; one row for each style",
        },
        "output": {
            "name": "probabilities",
            "shape": [1, len(bundle.scheme)],
            "type": "float32",
            "holds": "one probability for each of classes, in their order; those of a picture's "
            "styles are one answer as their geometric mean, by weight, scaled to sum 1",
        },
        "calibration": bundle.calibration,
        "thresholds": bundle.thresholds,
        "files": {name: digest_bytes(data) for name, data in files.items()},
    }
    files[_NOTE] = (json_text(document) + "\n").encode()
    with atomic_folder(target) as folder:
        for name, data in files.items():
            (folder / name).write_bytes(data)
    data = converted.data
    return Exported(target, variant, digest_bytes(data), len(data), len(bundle.onnx))
