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
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.artifacts import RESEARCH_USE, atomic_folder, digest_bytes, json_text, schema
from leuko.bundle import Goldens, ModelBundle, check_room, golden_pictures
from leuko.cells.style import looks
from leuko.errors import OutputError, UsageError
from leuko.host import versions
from leuko.parallel import Progress, bounded_map, worker_count
from leuko.runtime.classifier import OnnxClassifier, make_goldens
from leuko.runtime.looks import over_looks
from leuko.runtime.session import run_padded
from leuko.runtime.trust import Trust, feature_distances
from leuko.runtime.zoo import load
from leuko.training.convert_check import (
    Pair,
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
from leuko.training.convert_graph import open_session, to_float16
from leuko.training.convert_int8 import quantize
from leuko.training.convert_litert import litert_runner, to_litert

__all__ = ["FORMATS", "WEIGHTS", "Exported", "export_model"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

FORMATS: Final = ("onnx", "litert")
"""What a model can be written as."""

WEIGHTS: Final = ("float32", "float16", "int8")
"""How its numbers can be kept."""

_MOST_COMPARED: Final = 2000
_PART: Final = 8
_NOTE: Final = "export.json"
_LITERT: Final = ("model.tflite", _NOTE, "goldens.npz", "card.md")


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares.

    Attributes
    ----------
    path : Path
        The bundle, or the folder.
    variant : dict
        ``format``, ``weights``, ``source``, ``calibration``, ``check``, ``agreement``,
        ``drawn``: what is written into the variant too.
    digest : str
        Of the new bundle, or of the network's file for other formats.
    size, source_size : int
        Bytes of the network, and of the original's.
    """

    path: Path
    variant: dict[str, Any]
    digest: str
    size: int
    source_size: int


@dataclass(frozen=True)
class _Converted:
    """A network in its new form: its files by name, how to ask it, and a bundle around it."""

    files: dict[str, bytes]
    run: Runner
    made: ModelBundle | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))


def export_model(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    form: str = "onnx",
    weights: str = "float32",
    check: str | os.PathLike[str] | None = None,
    calibrate: str | os.PathLike[str] | None = None,
    ignore: tuple[str, ...] = (),
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Exported:
    """Write a model in another form, if it still answers as it did.

    Parameters
    ----------
    model : str or path-like
        A bundled model's name, a bundle or a run folder.
    out : path-like, optional
        For ``onnx`` a bundle, a folder or a ``.zip``; otherwise a folder. By default a name made
        of the model's, in the current folder.
    form : {"onnx", "litert"}
        What to write.
    weights : {"float32", "float16", "int8"}
        How to keep its numbers.
    check : path-like, optional
        Labelled pictures, a folder of class folders or a CSV. The variant is refused when its
        balanced accuracy on them is lower by more than 0.3 points.
    calibrate : path-like, optional
        Pictures that int8 ranges are measured on, labelled or not. By default up to 100 of
        `check`, which are then not checked with. Without `check`, the pictures that are left
        over must get the same class in 99.5% of cases.
    ignore : tuple of str
        Extra folders to pass over.
    seed : int
        Of the choice of pictures.
    workers : int, optional
        Threads.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.
    say : callable, optional
        Called with sentences for a person.

    Returns
    -------
    Exported
        What was written.

    Raises
    ------
    UsageError
        When int8 is wanted without pictures, LiteRT of what is no run folder with its Keras model,
        or a format or precision is not known.
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
    tell = say or (lambda _: None)
    _check_request(form, weights, check, calibrate)
    threads = worker_count(workers)
    classifier = load(model, threads=threads)
    bundle = classifier.bundle
    _check_source(bundle)
    target = _target(bundle, model, out, form, weights)
    keras = _keras_file(bundle, model) if form == "litert" else None
    labelled = None if check is None else labelled_pictures(check, ignore, tell, bundle.scheme)
    others = None if calibrate is None else any_pictures(calibrate, ignore, tell, bundle.scheme)
    rng = np.random.default_rng([seed, 31])
    sample, rest, source = None, None, labelled if others is None else others
    if weights == "int8" and source is not None:
        sample, left = draw_sample(source, bundle.preprocess, rng, threads, tell)
        labelled, rest = (left, None) if others is None else (labelled, left)
    converted = _convert(bundle, keras, weights, sample, threads)
    # What is compared is what is written: a bundle answers calibrated, and looks again where it
    # would; elsewhere there is the network alone.
    original = (
        classifier.predict_views
        if form == "onnx"
        else over_looks(_graph_runner(bundle.onnx, threads), bundle.preprocess.weights)
    )
    pair = Pair(
        bundle.name, form, weights, bundle.preprocess, original, converted.run, bundle.scheme
    )
    variant: dict[str, Any] = {
        "format": form,
        "weights": weights,
        "source": {"name": bundle.name, "digest": bundle.digest, "validation": bundle.validation},
        "calibration": sample.to_dict() if sample else None,
        "check": None,
        "agreement": None,
        "drawn": compare_drawn(pair),
        "versions": _versions(),
    }
    validation: dict[str, Any] = {}
    leave = set(sample.digests) if sample else set()
    if labelled is not None:
        answers = ask(pair, labelled, threads, progress, tell, leave=leave)
        variant["check"] = judge_accuracy(pair, answers, labelled, tell)
        validation = own_validation(answers, labelled, bundle.scheme) if form == "onnx" else {}
    elif rest is not None:
        rest = rest.take(np.sort(rng.permutation(len(rest))[:_MOST_COMPARED]))
        answers = ask(pair, rest, threads, progress, tell, leave=leave)
        variant["agreement"] = judge_agreement(pair, answers)
    if form == "onnx":
        return _write_bundle(bundle, converted, target, variant, validation)
    return _write_folder(bundle, converted, target, variant)


def _check_request(form: str, weights: str, check: object, calibrate: object) -> None:
    """Refuse what cannot be asked for."""
    if form not in FORMATS:
        raise UsageError(f"Unknown format {form!r}; known are {', '.join(FORMATS)}.")
    if weights not in WEIGHTS:
        raise UsageError(f"Unknown weights {weights!r}; known are {', '.join(WEIGHTS)}.")
    if weights == "int8" and check is None and calibrate is None:
        raise UsageError(
            "An int8 network is made with real pictures, and compared on them before it is "
            "written. Give --check FOLDER (labelled) or --calibrate FOLDER (any cells)."
        )
    if weights != "int8" and calibrate is not None:
        raise UsageError("--calibrate is for --int8; other networks have no ranges to measure.")


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


def _keras_file(bundle: ModelBundle, model: str | os.PathLike[str]) -> Path:
    """Find the Keras model that LiteRT is written from."""
    path = Path(os.path.expanduser(model)) / "model.keras"
    if not path.is_file():
        raise UsageError(
            f"There is no LiteRT of {bundle.name}: it is written from the model.keras of a run "
            f"folder that leuko train wrote, and {os.fspath(model)} has none."
        )
    return path


def _target(
    bundle: ModelBundle,
    model: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    form: str,
    weights: str,
) -> Path:
    """Where to write, or a sentence why not there."""
    if out is None:
        ending = ".zip" if form == "onnx" else f"-{form}"
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_"
                       for letter in bundle.name)  # fmt: skip
        path = Path(f"{name}-{weights}{ending}")
    else:
        path = Path(os.path.expanduser(out))
    if path.suffix.lower() == ".zip" and form != "onnx":
        raise UsageError(f"{form} is written as a folder; {path} is the name of a zip.")
    if path.exists() and Path(model).exists():
        source = Path(os.path.realpath(model))
        if Path(os.path.realpath(path)) in (source, source / "bundle"):
            raise OutputError(f"{path} is the model itself. Choose another --out.")
    if form == "onnx":
        ModelBundle.check_place(path)
        return path
    check_room(path)
    if path.is_dir():
        _check_folder(path)
    return path


def _check_folder(path: Path) -> None:
    """Refuse to replace a folder of another kind."""
    there = {place.name for place in path.iterdir()}
    others = there - {*_LITERT}
    if others or (there and _NOTE not in there):
        raise OutputError(
            f"{path} holds other things than an exported model, such as {min(others or there)}; "
            "writing would replace them. Choose another --out."
        )


def _convert(
    bundle: ModelBundle, keras: Path | None, weights: str, sample: Sample | None, threads: int
) -> _Converted:
    """Make the new network: LiteRT of a Keras model, where one is given."""
    onnx, spec = bundle.onnx, bundle.preprocess
    pixels = sample.pixels if sample else None
    if keras is not None:
        data = to_litert(keras, spec.size, weights=weights, pixels=pixels)
        run = over_looks(litert_runner(data, threads=threads), spec.weights)
        return _Converted({"model.tflite": data}, run)
    if weights == "float16":
        onnx = to_float16(onnx)
    elif pixels is not None:
        onnx = quantize(onnx, pixels)
    made = bundle if weights == "float32" else _with_network(bundle, onnx)
    run = OnnxClassifier(made, threads=threads).predict_views
    return _Converted({"model.onnx": onnx}, run, made)


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
    variant: dict[str, Any],
    validation: dict[str, Any],
) -> Exported:
    """Write an ONNX variant as a bundle of its own; float32 is the bundle as it was."""
    made = converted.made or bundle
    if made is not bundle:
        made = replace(
            made,
            name=f"{bundle.name}-{variant['weights']}",
            provenance={**bundle.provenance, "variant": variant},
            validation=validation,
            card=_card(bundle, variant),
        )
    made.save(target)
    return Exported(target, variant, made.digest, converted.size, len(bundle.onnx))


def _with_network(bundle: ModelBundle, onnx: bytes) -> ModelBundle:
    """Put another network into a bundle: goldens anew, calibration and limits as they were."""
    bare = replace(
        bundle,
        onnx=onnx,
        goldens=make_goldens(onnx, bundle.preprocess),
        calibration={"method": "none"},
        thresholds={},
        space=None,
    )
    trust = Trust.of(bundle)
    pictures = bare.goldens.pictures
    outputs = OnnxClassifier(bare, features=trust.space is not None).ask(list(pictures), trust)
    space = trust.space
    if space is not None:
        space = replace(space, goldens=feature_distances(space, outputs[1]).astype(np.float32))
    return replace(
        bare,
        goldens=Goldens(pictures, trust.calibrate(outputs[0]).astype(np.float32)),
        calibration=bundle.calibration,
        thresholds=bundle.thresholds,
        space=space,
    )


def _write_folder(
    bundle: ModelBundle, converted: _Converted, target: Path, variant: dict[str, Any]
) -> Exported:
    """Write a LiteRT network, with what is needed to use it rightly."""
    spec = bundle.preprocess
    pictures = golden_pictures()
    inputs = np.stack([looks(picture, spec) for picture in pictures])
    goldens = Goldens(pictures, converted.run(inputs).astype(np.float32))
    arrays = io.BytesIO()
    np.savez_compressed(
        arrays, allow_pickle=False, pictures=goldens.pictures, probabilities=goldens.probabilities
    )
    files = {
        **converted.files,
        "goldens.npz": arrays.getvalue(),
        "card.md": _card(bundle, variant).encode(),
    }
    document = {
        "schema": schema("export"),
        "research_use": RESEARCH_USE,
        "name": bundle.name,
        "variant": variant,
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
    main = next(iter(converted.files.values()))
    return Exported(target, variant, digest_bytes(main), converted.size, len(bundle.onnx))


def _card(bundle: ModelBundle, variant: dict[str, Any]) -> str:
    """A card that says what was changed and measured, with the original's card behind it."""
    title = f"{bundle.name}, {variant['weights']} {variant['format']}"
    lines = [
        f"# {title}",
        "",
        f"**{RESEARCH_USE}**",
        "",
        f"Made from {bundle.name}, digest `{bundle.digest[:16]}`, by `leuko export`.",
        "",
    ]
    calibration, check = variant["calibration"], variant["check"]
    agreement, drawn = variant["agreement"], variant["drawn"]
    if calibration:
        lines.append(
            f"- Ranges measured on {calibration['n']} pictures, digest "
            f"`{calibration['digest'][:16]}`."
        )
    if check:
        figures = check["balanced_accuracy"]
        lines.append(
            f"- Balanced accuracy {figures['variant']:.4f}, the original's "
            f"{figures['original']:.4f}, on the same {check['n']:,} pictures, digest "
            f"`{check['digest'][:16]}`; the same class for {100 * check['agreement']:.2f}%."
        )
    if agreement:
        lines.append(
            f"- The original's class for {100 * agreement['agreement']:.2f}% of "
            f"{agreement['n']:,} pictures without labels, digest `{agreement['digest'][:16]}`. "
            "Its accuracy was not measured."
        )
    if not check and not agreement:
        lines.append("- Its accuracy was not measured; it was compared on drawn cells alone.")
    lines += [
        f"- On {drawn['n']} drawn cells: the same class for {100 * drawn['agreement']:.1f}%, "
        f"largest difference of a probability {drawn['largest_difference']:.2g}.",
        "- Calibration and thresholds, where there are any, are the original's.",
        "",
        "## The original's card",
        "",
        "What follows was measured with the original and not with this variant.",
        "",
    ]
    for line in bundle.card.splitlines():
        lines.append(f"##{line}" if line.startswith("#") else line)
    return "\n".join(lines).rstrip("\n") + "\n"
