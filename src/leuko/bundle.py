"""A model as it ships: a folder or one zip of numbers and text, checked when it is opened.

No code comes out of a bundle. The network is an ONNX graph loaded from bytes, everything else is
JSON, Markdown and plain arrays. Small golden pictures with the answers that were given when the
bundle was written are asked again on loading, so a changed resize or scale fails loudly.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import BundleError, DataError, OutputError
from leuko.imaging.preprocess import MIN_SIDE, PreprocessSpec
from leuko.scheme import DIFFERENTIAL_5, ClassScheme, load_scheme, scheme_in
from leuko.support.artifacts import (
    RESEARCH_USE,
    atomic_folder,
    atomic_write,
    check_schema,
    digest_bytes,
    digest_json,
    finite,
    json_text,
    restore_folder,
    schema,
)

__all__ = [
    "MAX_AXES",
    "MOST_MEASURED",
    "FeatureSpace",
    "Goldens",
    "MeasuredLayer",
    "ModelBundle",
    "check_room",
    "golden_pictures",
    "is_model_path",
]

_MEMBERS: Final = ("bundle.json", "model.onnx", "goldens.npz", "card.md")
_TRUST: Final = "trust.npz"
_MAX_TRUST: Final = 16 * 2**20
_MAX_MEMBER: Final = 512 * 2**20
_MAX_RATIO: Final = 200
_MAX_GOLDENS: Final = 64 * 2**20
_PACKED: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_GOLDEN_SIDE: Final = 96
_GOLDEN_COUNT: Final = 4

MAX_AXES: Final = 64
"""A `FeatureSpace` has at most so many axes."""

MOST_MEASURED: Final = 2.0
"""No number of a `MeasuredLayer` counts for more spreads than this: what lies further out was never
fitted, and may be dirt."""

_MAX_WEIGHT: Final = 1e6

# What zipfile and what it calls raise on a damaged or hostile archive.
_ZIP_FAULTS: Final = (
    OSError,
    EOFError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def check_room(target: Path) -> None:
    """Say before a long work that a folder, or a ``.zip``, could not be written after it.

    Parameters
    ----------
    target : Path
        What is to be written.

    Raises
    ------
    OutputError
        When a file stands where a folder is needed or the other way round, or the folder above
        cannot be written to.
    """
    above = next((place for place in target.absolute().parents if place.exists()), None)
    why = ""
    if above is None or not above.is_dir() or (target.is_file() and not _is_zip(target)):
        why = "a file stands where a folder is needed"
    elif not os.access(above, os.W_OK):
        why = f"nothing can be written to {above}"
    elif _is_zip(target) and target.is_dir():
        why = "a folder stands where a file is needed"
    if why:
        raise OutputError(f"{target} cannot be written: {why}; choose another path.")


def is_model_path(model: str | os.PathLike[str]) -> bool:
    """Whether a model is given by its path, and not by the name of one that comes along.

    Parameters
    ----------
    model : str or path-like
        A path has a separator or ends in ``.zip``.

    Returns
    -------
    bool
    """
    text = os.fspath(model)
    is_named = isinstance(model, str) and "/" not in text and os.sep not in text
    return not is_named or text.endswith(".zip")


@dataclass(frozen=True)
class Goldens:
    """Pictures with the answers that a bundle promises for them.

    Attributes
    ----------
    pictures : (K, 96, 96, 3) uint8, RGB
        Before preprocessing.
    probabilities : (K, C) float32
        As they were answered when the bundle was written: by ONNX Runtime, and calibrated where
        the bundle has a calibration.
    """

    pictures: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """Where the features of the pictures lie that a model was validated on.

    A picture's ``d`` features (what enters the network's last layer) are divided by their length.
    How far they are from the nearest class says whether the picture is unlike all of them; see
    `leuko.runtime.trust.decide.feature_distances`.

    Attributes
    ----------
    mean : (d,) float16
        Of the pictures.
    axes : (d, k) float16
        Directions in which the pictures differ most, orthonormal; at most `MAX_AXES`.
    whitening : (k, k) float16
        Makes the spread within classes the same along all axes: 1.
    centres : (c, k) float16
        Of each class that there was, along the whitened axes.
    spread : (1,) float32
        Variance along each of the other ``d - k`` directions.
    goldens : (K,) float32
        Distances of the golden pictures, compared on loading.
    """

    mean: npt.NDArray[np.float16]
    axes: npt.NDArray[np.float16]
    whitening: npt.NDArray[np.float16]
    centres: npt.NDArray[np.float16]
    spread: npt.NDArray[np.float32]
    goldens: npt.NDArray[np.float32]

    @property
    def digest(self) -> str:
        """SHA-256 over the arrays."""
        arrays = vars(self).items()
        return digest_json({k: [list(a.shape), digest_bytes(a.tobytes())] for k, a in arrays})


@dataclass(frozen=True, eq=False)
class MeasuredLayer:
    """A second last layer, beside the network's: of numbers that are measured on the cell.

    What it gives is added to the network's logits, before any calibration.

    Attributes
    ----------
    names : tuple of m str
        What is measured, as in `leuko.cells.morphometry.MEASURES`.
    middle, spread : (m,) float64
        Numbers are taken from the first, divided by the second, and cut at `MOST_MEASURED`.
    weights : (m, K) float64
        Of what comes of that, for each class.
    """

    names: tuple[str, ...]
    middle: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]

    def logits(self, measures: Sequence[npt.NDArray[np.float64] | None]) -> npt.NDArray[np.float64]:
        """Apply it.

        Parameters
        ----------
        measures : N times (m,) float64, or None
            Of each picture; None adds nothing.

        Returns
        -------
        (N, K) float64
            To be added to the network's logits.
        """
        rows = [self.middle if numbers is None else numbers for numbers in measures]
        with np.errstate(over="ignore"):
            values = (np.array(rows).reshape(-1, len(self.names)) - self.middle) / self.spread
        return np.asarray(values.clip(-MOST_MEASURED, MOST_MEASURED) @ self.weights, np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON values.

        Returns
        -------
        dict
            For `from_dict`.
        """
        arrays = {name: getattr(self, name).tolist() for name in ("middle", "spread", "weights")}
        return {"names": list(self.names), **arrays}

    @classmethod
    def from_dict(cls, values: dict[str, Any], classes: int) -> MeasuredLayer:
        """Read what `to_dict` gives.

        Parameters
        ----------
        values : dict
            From an untrusted file.
        classes : int
            How many the bundle has.

        Returns
        -------
        MeasuredLayer
            Of numbers that fit each other.

        Raises
        ------
        KeyError, TypeError, ValueError
            When it is something else.
        """
        names = tuple(map(str, values["names"]))
        middle, spread, weights = (
            np.array(values[name], np.float64) for name in ("middle", "spread", "weights")
        )
        fits = (
            len(names) > 0
            and middle.shape == spread.shape == (len(names),)
            and weights.shape == (len(names), classes)
            and all(bool(np.isfinite(array).all()) for array in (middle, spread, weights))
            and float(spread.min()) > 0
            and float(np.abs(weights).max()) <= _MAX_WEIGHT
        )
        if not fits:
            raise ValueError("its measured layer does not fit itself")
        return cls(names, middle, spread, weights)


@dataclass(frozen=True)
class ModelBundle:
    """Everything that a classifier needs, and where it came from.

    Attributes
    ----------
    name : str
        Short name.
    onnx : bytes
        Graph with input ``pixels`` (N, h, w, 3) float32 RGB 0-255 and output ``probabilities``
        (N, C) float32 in the order of the scheme.
    preprocess : PreprocessSpec
        How a picture becomes the input.
    card : str
        Markdown for people.
    goldens : Goldens
        Checked by the runtime on loading.
    parameters : int
        Number of weights.
    calibration, thresholds, provenance, validation : dict
        Plain JSON values: how probabilities were calibrated, what is decided on them, digests
        of recipe and manifest with versions and seed, and figures on grouped validation.
    space : FeatureSpace or None
        What a picture must be like to be answered; None when nothing is known of that.
    measured : MeasuredLayer or None
        What numbers measured on the cell add to the network's answer.
    scheme : ClassScheme
        Of its C answers.
    """

    name: str
    onnx: bytes
    preprocess: PreprocessSpec
    card: str
    goldens: Goldens
    parameters: int
    calibration: dict[str, Any] = field(default_factory=lambda: {"method": "none"})
    thresholds: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    space: FeatureSpace | None = None
    measured: MeasuredLayer | None = None
    scheme: ClassScheme = field(default_factory=lambda: load_scheme(DIFFERENTIAL_5))

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides an answer; cards and colours may change."""
        document = {
            "onnx": digest_bytes(self.onnx),
            "classes": list(self.scheme.names),
            "preprocess": self.preprocess.to_dict(),
            "calibration": self.calibration,
            "thresholds": self.thresholds,
        }
        # Bundles without these keep the digest that they had.
        if self.space is not None:
            document["space"] = self.space.digest
        if self.measured is not None:
            document["measured"] = self.measured.to_dict()
        return digest_json(document)

    def members(self) -> dict[str, bytes]:
        """Give the files of the bundle.

        Returns
        -------
        dict of str to bytes
            By name; equal bundles give equal bytes.
        """
        files = {
            "model.onnx": self.onnx,
            "goldens.npz": _npz(vars(self.goldens)),
            "card.md": self.card.encode("utf-8", "backslashreplace"),  # it may quote any file name
        }
        if self.space is not None:
            files[_TRUST] = _npz(vars(self.space))
        document = {
            "schema": schema("bundle"),
            "research_use": RESEARCH_USE,
            "name": self.name,
            "digest": self.digest,
            "classes": list(self.scheme.names),
            "scheme": self.scheme.to_dict(),
            "preprocess": self.preprocess.to_dict(),
            "parameters": self.parameters,
            "calibration": self.calibration,
            "thresholds": self.thresholds,
            "validation": self.validation,
            "provenance": self.provenance,
            "files": {name: digest_bytes(data) for name, data in files.items()},
        }
        if self.measured is not None:
            document["measured"] = self.measured.to_dict()
        document["seal"] = digest_json(finite(document))
        return {"bundle.json": (json_text(document) + "\n").encode(), **files}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a folder, or one zip when the name ends in ``.zip``; atomically.

        Parameters
        ----------
        path : path-like
            Where to.

        Raises
        ------
        OutputError
            When it cannot be written, or something else than a bundle stands there: it would be
            replaced as a whole.
        """
        target = Path(path)
        self.check_place(target)
        if _is_zip(target):
            with atomic_write(target) as file, zipfile.ZipFile(file, "w") as archive:
                for name, data in self.members().items():
                    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                    entry.create_system = 3  # or the bytes would tell which system wrote them
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    entry.external_attr = 0o644 << 16
                    archive.writestr(entry, data, compresslevel=9)
            return
        with atomic_folder(target) as folder:
            for name, data in self.members().items():
                (folder / name).write_bytes(data)

    @staticmethod
    def check_place(target: Path) -> None:
        """Say before a long work that its bundle could not be written there.

        Parameters
        ----------
        target : Path
            Where `save` would write.

        Raises
        ------
        OutputError
            When something else than a bundle stands there, or the folder above it cannot be
            written to.
        """
        check_room(target)
        _refuse_others(target)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ModelBundle:
        """Open a bundle and check every digest.

        Parameters
        ----------
        path : path-like
            A bundle's folder or zip, or a run folder that has ``bundle/`` in it.

        Returns
        -------
        ModelBundle
            Complete. That it answers as promised is checked by the runtime.

        Raises
        ------
        BundleError
            When it is missing, damaged or from a newer version.
        """
        source = Path(os.path.expanduser(path))
        try:
            if source.is_dir() and not (source / "bundle.json").exists():
                restore_folder(source / "bundle")
                if (source / "bundle").is_dir():
                    source = source / "bundle"
            if not source.exists():
                restore_folder(source)
            if not source.exists():
                raise BundleError(f"There is no model at {path}.")
            _refuse_export(source)
            files = _read_folder(source) if source.is_dir() else _read_zip(source)
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
        return cls._from_files(files, str(path))

    @classmethod
    def _from_files(cls, files: dict[str, bytes], source: str) -> ModelBundle:
        """Check files against what bundle.json says of them."""
        try:
            document = check_schema(json.loads(files["bundle.json"]), "bundle", source)
        except (ValueError, RecursionError, DataError) as error:
            raise BundleError(f"{source} is not a bundle that can be opened: {error}") from error
        seal = document.pop("seal", None)
        try:
            if seal is not None and digest_json(document) != seal:
                raise BundleError(
                    f"{source} was changed by hand: bundle.json is not the file that was written. "
                    "Fetch or export the bundle again."
                )
            digests = dict(document["files"])
            for name in {**dict.fromkeys(_MEMBERS[1:]), **digests, **files}:
                data = files.get(name)
                if name != _MEMBERS[0] and (
                    data is None or digest_bytes(data) != digests.get(name)
                ):
                    raise BundleError(
                        f"{source} is damaged: {name} is not the file that was written. Fetch or "
                        "export the bundle again."
                    )
            scheme = scheme_in(document)
            if list(document["classes"]) != list(scheme.names):
                raise ValueError("its classes are not those of its scheme")
            variant = document["provenance"].get("variant", {})
            if not isinstance(variant, dict) or not isinstance(variant.get("source", {}), dict):
                raise ValueError("what it says of its original is no table")
            goldens = _read_goldens(files["goldens.npz"], len(scheme))
            bundle = cls(
                name=str(document["name"]),
                onnx=files["model.onnx"],
                preprocess=PreprocessSpec.from_dict(document["preprocess"]),
                card=files["card.md"].decode(),
                goldens=goldens,
                parameters=int(document["parameters"]),
                calibration=dict(document["calibration"]),
                thresholds=dict(document["thresholds"]),
                provenance=dict(document["provenance"]),
                validation=dict(document["validation"]),
                space=_read_space(files[_TRUST], len(goldens.pictures), len(scheme))
                if _TRUST in files
                else None,
                measured=MeasuredLayer.from_dict(document["measured"], len(scheme))
                if "measured" in document
                else None,
                scheme=scheme,
            )
        except BundleError:
            raise
        except (
            DataError, KeyError, TypeError, ValueError, AttributeError, OverflowError, *_ZIP_FAULTS,
        ) as error:  # fmt: skip
            raise BundleError(f"{source} is damaged: {error!r}.") from error
        if bundle.digest != document.get("digest"):
            raise BundleError(
                f"{source} was changed by hand: its settings do not match its digest. Fetch or "
                "export the bundle again."
            )
        return bundle


def golden_pictures() -> npt.NDArray[np.uint8]:
    """Draw the small pictures that bundles are checked with.

    Smooth blobs on a pale ground: they compress well and still change under another crop,
    resize or scale.

    Returns
    -------
    (4, 96, 96, 3) uint8, RGB
        Always the same.
    """
    rng = np.random.default_rng(1879)
    rows, columns = np.mgrid[0:_GOLDEN_SIDE, 0:_GOLDEN_SIDE] / _GOLDEN_SIDE
    pictures = np.empty((_GOLDEN_COUNT, _GOLDEN_SIDE, _GOLDEN_SIDE, 3), np.uint8)
    for picture in pictures:
        image = np.array([235.0, 225.0, 220.0]) * np.ones((_GOLDEN_SIDE, _GOLDEN_SIDE, 1))
        for _ in range(5):
            row, column = rng.uniform(0.25, 0.75, 2)
            radius, colour = rng.uniform(0.08, 0.25), rng.uniform(30, 200, 3)
            distance = ((rows - row) ** 2 + (columns - column) ** 2) / radius**2
            cover = np.exp(-(distance**2))[..., None]
            image = image * (1 - cover) + colour * cover
        picture[:] = np.round(image).astype(np.uint8)
    return pictures


def _npz(arrays: dict[str, npt.NDArray[Any]]) -> bytes:
    """Arrays as one compressed file; equal arrays give equal bytes."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _read_npz(
    data: bytes, names: tuple[str, ...], limit: int, what: str
) -> dict[str, npt.NDArray[Any]]:
    """Read arrays, refusing other names, objects and any bomb."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > limit:
        raise ValueError(f"its {what} are too large")
    if any(entry.compress_type not in _PACKED for entry in entries):
        raise ValueError(f"its {what} are packed in an unusual way")
    if sorted(entry.filename for entry in entries) != sorted(f"{name}.npy" for name in names):
        raise ValueError(f"its {what} are other arrays than {', '.join(names)}")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in names}


def _read_goldens(data: bytes, classes: int) -> Goldens:
    """Read the golden pictures, refusing arrays of another kind and any bomb."""
    arrays = _read_npz(data, ("pictures", "probabilities"), _MAX_GOLDENS, "goldens")
    pictures, probabilities = arrays["pictures"], arrays["probabilities"]
    fits = (
        pictures.dtype == np.uint8
        and probabilities.dtype == np.float32
        and (pictures.ndim, pictures.shape[3:]) == (4, (3,))
        and probabilities.shape == (len(pictures), classes)
        and len(pictures) > 0
        and min(pictures.shape[1:3]) >= MIN_SIDE
        and bool(np.isfinite(probabilities).all())
    )
    if not fits:
        raise ValueError("its goldens are not pictures with probabilities")
    return Goldens(pictures, probabilities)


def _read_space(data: bytes, pictures: int, classes: int) -> FeatureSpace:
    """Read a feature space, refusing arrays that do not fit each other and any bomb."""
    names = tuple(FeatureSpace.__dataclass_fields__)
    space = FeatureSpace(**_read_npz(data, names, _MAX_TRUST, "trust statistics"))
    halves = (space.mean, space.axes, space.whitening, space.centres)
    features, axes = space.axes.shape if space.axes.ndim == 2 else (0, 0)
    fits = (
        all(array.dtype == np.float16 for array in halves)
        and all(array.dtype == np.float32 for array in (space.spread, space.goldens))
        and 1 <= axes <= min(MAX_AXES, features)
        and space.mean.shape == (features,)
        and space.whitening.shape == (axes, axes)
        and space.centres.ndim == 2
        and 1 <= len(space.centres) <= classes
        and space.centres.shape[1] == axes
        and space.spread.shape == (1,)
        and space.goldens.shape == (pictures,)
        and all(bool(np.isfinite(array).all()) for array in vars(space).values())
        and float(space.spread[0]) > 0
    )
    if not fits:
        raise ValueError("its trust statistics do not fit each other")
    return space


def _refuse_export(folder: Path) -> None:
    """Say what a folder is that `leuko export` wrote for another runtime."""
    if (folder / "export.json").is_file() and not (folder / "bundle.json").exists():
        raise BundleError(
            f"{folder} is an export for another runtime; Leuko opens only ONNX bundles. Give the "
            "model that it was made from."
        )


def _read_folder(folder: Path) -> dict[str, bytes]:
    """Read the members of an unpacked bundle."""
    files = {}
    for name in (*_MEMBERS, _TRUST):
        member = folder / name
        if name == _TRUST and not os.path.lexists(member):
            continue
        try:
            if member.stat().st_size > _MAX_MEMBER:
                raise BundleError(f"{member} is larger than {_MAX_MEMBER // 2**20} MB.")
            files[name] = member.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{folder} is not a complete bundle: {name} cannot be read ({error.strerror})."
            ) from error
    return files


def _read_zip(path: Path) -> dict[str, bytes]:
    """Read the members of a zipped bundle, refusing anything else and any bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            wanted = {*_MEMBERS} | ({_TRUST} & {*entries})
            if {*entries} != wanted or len(archive.infolist()) != len(wanted):
                raise BundleError(
                    f"{path} is not a bundle: expected {', '.join(_MEMBERS)}; received "
                    f"{', '.join(sorted(entries)[:8]) or 'nothing'}."
                )
            for entry in entries.values():
                ratio = entry.file_size / max(1, entry.compress_size)
                if entry.file_size > _MAX_MEMBER or ratio > _MAX_RATIO:
                    raise BundleError(
                        f"{path} is refused: {entry.filename} unpacks to {entry.file_size} bytes."
                    )
                if entry.compress_type not in _PACKED:
                    raise BundleError(
                        f"{path} is refused: {entry.filename} is packed in an unusual way. Pack "
                        "the folder again with plain zip."
                    )
            return {name: archive.read(entry) for name, entry in entries.items()}
    except (ValueError, *_ZIP_FAULTS) as error:
        raise BundleError(f"{path} cannot be read as a bundle: {error}.") from error


def _is_zip(target: Path) -> bool:
    """Whether a bundle of that name is one file."""
    return target.suffix.lower() == ".zip"


def _holds_bundle(file: Path) -> bool:
    """Whether a file looks like one of our zips."""
    try:
        with zipfile.ZipFile(file) as archive:
            return "bundle.json" in archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _refuse_others(target: Path) -> None:
    """Do not replace a file that is no bundle, or a folder that holds anything else."""
    if target.is_file() and not _holds_bundle(target):
        raise OutputError(f"{target} is there already and is no bundle. Choose another name.")
    there = {place.name for place in target.iterdir()} if target.is_dir() else set()
    others = there - {*_MEMBERS, _TRUST}
    if others or (there and "bundle.json" not in there):
        raise OutputError(
            f"{target} holds other things than a bundle, such as {min(others or there)}; writing "
            "would replace them. Choose another folder."
        )
