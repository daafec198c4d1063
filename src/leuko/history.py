"""What was done to a model and measured of it, as its bundle keeps it.

Each of these is what a bundle holds under one key of its ``provenance`` or ``validation``, typed:
`to_dict` writes it, `from_dict` reads it, also from bundles of earlier versions. The words that a
person reads are made of them in `leuko.runtime.cards`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from leuko.errors import UsageError
from leuko.statistics import rounded

__all__ = [
    "Change",
    "Compared",
    "ImportReport",
    "LabelsReport",
    "Selection",
    "TrainingReport",
    "TrustReport",
    "TrustTargets",
    "Variant",
]

Document = dict[str, Any]
"""Plain JSON values."""


@dataclass(frozen=True, slots=True)
class TrustTargets:
    """What is promised.

    Attributes
    ----------
    accuracy : float
        Of the answers that are not ``unsure`` for their confidence; see
        `leuko.runtime.trust.fit.select_confidence`.
    level : float
        Probability that it is reached, for pictures drawn like those that it is fitted on.
    coverage : float
        Of the prediction sets, for each class.
    alarms : float
        Share of ordinary pictures that may be called ``unlike-training``.
    """

    accuracy: float = 0.99
    level: float = 0.95
    coverage: float = 0.98
    alarms: float = 0.01

    def __post_init__(self) -> None:
        """Refuse what cannot be promised."""
        for name, value in asdict(self).items():
            if not 0 < value < 1:
                raise UsageError(f"{name} must lie between 0 and 1, received {value}.")


@dataclass(frozen=True, slots=True)
class Selection:
    """A limit of confidence and what it gives.

    Attributes
    ----------
    confidence : float
        Answers of at least this probability are given, the others are ``unsure``.
    coverage : float
        Share of the pictures that are answered, where it was fitted.
    accuracy : float
        Of these, there.
    accuracy_low : float
        Their accuracy is at least this with the probability that was asked for.
    """

    confidence: float
    coverage: float
    accuracy: float
    accuracy_low: float


@dataclass(frozen=True, slots=True)
class Change:
    """A figure as it was and as it is now."""

    before: float
    after: float


@dataclass(frozen=True)
class TrustReport:
    """What was measured when a bundle was calibrated: ``validation["trust"]``.

    Attributes
    ----------
    n, n_slides : int
        Pictures, and slides that are known.
    data : str
        Digest of the pictures.
    seed : int
        Of the dealing to folds.
    targets : TrustTargets
        What was promised.
    temperature : float
        As fitted.
    log_loss, ece : Change
        By the temperature.
    selection : Selection or None
        The limit of confidence; None where the promised accuracy could not be shown.
    reached : Selection or None
        What the bundle's own limit gives then.
    set_size : float or None
        Classes in a prediction set, on average; None where no sets could be fitted.
    again : float or None
        Share of the pictures that are shown in every style.
    axes : int or None
        Of the feature space.
    searched : float or None
        Share of ordinary pictures that are searched for their nucleus.
    kept : tuple of str
        Names of the limits that are the bundle's own.
    shares : mapping of str to float
        Of the pictures, by reason or decision.
    accuracy : float or None
        Of the accepted answers.
    notes : tuple of str
        Sentences on what these pictures could not tell.
    """

    n: int
    n_slides: int
    data: str
    seed: int
    targets: TrustTargets
    temperature: float
    log_loss: Change
    ece: Change
    selection: Selection | None = None
    reached: Selection | None = None
    set_size: float | None = None
    again: float | None = None
    axes: int | None = None
    searched: float | None = None
    kept: tuple[str, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    accuracy: float | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> Document:
        """Give it as plain JSON values.

        Returns
        -------
        dict
            What is not known, and what was not kept, has no key.
        """
        reached = None if self.reached is None else asdict(self.reached)
        document: Document = {
            "n": self.n,
            "n_slides": self.n_slides,
            "data": self.data,
            "seed": self.seed,
            "targets": asdict(self.targets),
            "temperature": self.temperature,
            "log_loss": [self.log_loss.before, self.log_loss.after],
            "ece": [self.ece.before, self.ece.after],
            **_known(again=self.again),
            "selection": None if self.selection is None else asdict(self.selection),
            **_known(reached=reached),
            "sets": None if self.set_size is None else {"mean_size": self.set_size},
            **_known(axes=self.axes, searched=self.searched, kept=[*self.kept] or None),
            "decisions": {"shares": dict(self.shares), "accuracy": self.accuracy},
            "notes": list(self.notes),
        }
        plain: Document = rounded(document)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrustReport:
        """Read what `to_dict` gives.

        Parameters
        ----------
        values : mapping
            Of a bundle, digest checked.

        Returns
        -------
        TrustReport
            Rounded.
        """
        selection, reached, sets = (values.get(name) for name in ("selection", "reached", "sets"))
        return cls(
            **{name: values[name] for name in ("n", "n_slides", "data", "seed", "temperature")},
            targets=TrustTargets(**values["targets"]),
            log_loss=Change(*values["log_loss"]),
            ece=Change(*values["ece"]),
            selection=Selection(**selection) if selection else None,
            reached=Selection(**reached) if reached else None,
            set_size=sets["mean_size"] if sets else None,
            again=values.get("again"),
            axes=values.get("axes"),
            searched=values.get("searched"),
            kept=tuple(values.get("kept", ())),
            shares=values["decisions"]["shares"],
            accuracy=values["decisions"]["accuracy"],
            notes=tuple(values["notes"]),
        )


@dataclass(frozen=True)
class LabelsReport:
    """What a refit to labelled cells gave: ``provenance["adaptation"]["labels"]``.

    Attributes
    ----------
    n : int
        Cells.
    classes : mapping of str to int
        Cells of each class.
    dealt : {"cells", "slides"}
        What is held out together.
    slides, unseen : int
        Slides that are known; cells that were held out with all others of their class.
    folds, repeats : int
        Of the cross-validation.
    kind : {"bias", "ridge", "measured"}
        What was fitted; `strength` is that of its ridge.
    log_loss, accuracy, balanced_accuracy : Change
        As shipped, and cross-validated.
    low, high : float
        Interval of the accuracy.
    calibrated : bool
        Whether the temperature was fitted again.
    temperature : float
        Of the answers from now on.
    """

    n: int
    classes: Mapping[str, int]
    dealt: str
    slides: int
    unseen: int
    folds: int
    repeats: int
    kind: str
    strength: float
    log_loss: Change
    accuracy: Change
    balanced_accuracy: Change
    low: float
    high: float
    calibrated: bool
    temperature: float

    def to_dict(self) -> Document:
        """Give it as plain JSON values.

        Returns
        -------
        dict
            The interval stands with the accuracy.
        """
        values = asdict(self)
        values["accuracy"] |= {"low": values.pop("low"), "high": values.pop("high")}
        plain: Document = rounded(values)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelsReport:
        """Read what `to_dict` gives.

        Parameters
        ----------
        values : mapping
            Of a bundle, digest checked.

        Returns
        -------
        LabelsReport
            Rounded.
        """
        figures = {
            name: Change(values[name]["before"], values[name]["after"])
            for name in ("log_loss", "accuracy", "balanced_accuracy")
        }
        span = {name: values["accuracy"][name] for name in ("low", "high")}
        return cls(**{**values, **figures, **span})


@dataclass(frozen=True)
class ImportReport:
    """Where a foreign network came from: ``provenance["imported"]``.

    Attributes
    ----------
    source_name, source_sha256, source_format : str
        Of the file.
    model_classes : tuple of str
        In the order of the network's outputs.
    class_order : tuple of int
        Where each class of the bundle stands among them.
    input_scale, input_offset : tuple of float
        What pixels 0 to 255 become.
    channel_order, layout : str
        ``rgb`` or ``bgr``; ``NCHW`` or ``NHWC``.
    softmax_added : bool
        Whether the network ends in logits.
    notes : tuple of str
        Remarks for a person.
    keras_version : str
        Of the Keras that wrote the file; empty for ONNX.
    limits : tuple of str
        What the conversion was kept from.
    command : str
        That imported it; empty where it was imported from Python.
    """

    source_name: str
    source_sha256: str
    source_format: str
    model_classes: tuple[str, ...] = ()
    class_order: tuple[int, ...] = ()
    input_scale: tuple[float, ...] = ()
    input_offset: tuple[float, ...] = ()
    channel_order: str = "rgb"
    layout: str = ""
    softmax_added: bool = False
    notes: tuple[str, ...] = ()
    keras_version: str = ""
    limits: tuple[str, ...] = ()
    command: str = ""

    def to_dict(self) -> Document:
        """Give it as plain JSON values.

        Returns
        -------
        dict
            Without Keras's keys for ONNX, and without an empty command.
        """
        keras = ("keras_version", "limits") if not self.keras_version else ()
        absent = {*keras, *(() if self.command else ("command",))}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in absent
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImportReport:
        """Read what `to_dict` gives.

        Parameters
        ----------
        values : mapping
            Of a bundle, digest checked.

        Returns
        -------
        ImportReport
            The same; what an earlier version did not say is left as it is by default.
        """
        known: Document = {
            name: tuple(values[name]) if isinstance(values[name], list) else values[name]
            for name in cls.__dataclass_fields__
            if name in values
        }
        return cls(**known)


@dataclass(frozen=True)
class Compared:
    """Two networks on the same pictures.

    Attributes
    ----------
    n : int
        Pictures that both were asked.
    agreement : float
        Share of them with the same class.
    largest_difference : float
        Of a probability.
    rejected : int
        How many more could not be read.
    digest : str
        Of the pictures; empty for drawn ones, which are always the same.
    classes : mapping of str to int
        Pictures of each class; empty where nobody knows.
    balanced_accuracy : Change or None
        The original's and the variant's; None without labels.
    """

    n: int
    agreement: float
    largest_difference: float
    rejected: int = 0
    digest: str = ""
    classes: Mapping[str, int] = field(default_factory=dict)
    balanced_accuracy: Change | None = None

    def to_dict(self) -> Document:
        """Give it as plain JSON values.

        Returns
        -------
        dict
            Drawn pictures have no digest, and unlabelled ones neither classes nor accuracy.
        """
        document: Document = {"n": self.n}
        if self.digest:
            document |= {"rejected": self.rejected, "digest": self.digest}
        document |= {
            "agreement": self.agreement,
            "largest_difference": self.largest_difference,
        }
        if self.balanced_accuracy is not None:
            original, variant = self.balanced_accuracy.before, self.balanced_accuracy.after
            document["classes"] = dict(self.classes)
            document["balanced_accuracy"] = {"original": original, "variant": variant}
        return document

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Compared:
        """Read what `to_dict` gives.

        Parameters
        ----------
        values : mapping
            Of a bundle, digest checked.

        Returns
        -------
        Compared
            The same.
        """
        figures = values.get("balanced_accuracy")
        change = None if figures is None else Change(figures["original"], figures["variant"])
        return cls(**{**values, "balanced_accuracy": change})


@dataclass(frozen=True)
class Variant:
    """What an exported network was made from, and how it compares: ``provenance["variant"]``.

    Attributes
    ----------
    form : str
        What it is written as, a name in `leuko.formats.outputs.OUTPUT_FORMATS`.
    weights : {"float32", "float16", "int8"}
        How its numbers are kept.
    source_name, source_digest : str
        Of the original.
    source_validation : mapping
        Figures of the original, which are not the variant's.
    drawn : Compared
        On drawn cells.
    calibration : (int, str) or None
        Number and digest of the pictures that ranges were measured on.
    check, agreement : Compared or None
        On labelled pictures, or on others; one of them at most.
    versions : mapping of str to str
        Of what it depends on.
    """

    form: str
    weights: str
    source_name: str
    source_digest: str
    source_validation: Mapping[str, Any]
    drawn: Compared
    calibration: tuple[int, str] | None = None
    check: Compared | None = None
    agreement: Compared | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> Document:
        """Give it as plain JSON values.

        Returns
        -------
        dict
            ``format``, ``weights``, ``source``, ``calibration``, ``check``, ``agreement``,
            ``drawn``, ``versions``.
        """
        source = {
            "name": self.source_name,
            "digest": self.source_digest,
            "validation": dict(self.source_validation),
        }
        ranges = self.calibration
        return {
            "format": self.form,
            "weights": self.weights,
            "source": source,
            "calibration": None if ranges is None else {"n": ranges[0], "digest": ranges[1]},
            "check": None if self.check is None else self.check.to_dict(),
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
            "drawn": self.drawn.to_dict(),
            "versions": dict(self.versions),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Variant:
        """Read what `to_dict` gives.

        Parameters
        ----------
        values : mapping
            Of a bundle, digest checked.

        Returns
        -------
        Variant
            The same.
        """
        source, ranges = values["source"], values["calibration"]
        compared = {
            name: Compared.from_dict(values[name]) if values[name] else None
            for name in ("check", "agreement")
        }
        return cls(
            form=values["format"],
            weights=values["weights"],
            source_name=source["name"],
            source_digest=source["digest"],
            source_validation=source["validation"],
            drawn=Compared.from_dict(values["drawn"]),
            calibration=(ranges["n"], ranges["digest"]) if ranges else None,
            **compared,
            versions=values["versions"],
        )


@dataclass(frozen=True)
class TrainingReport:
    """How a network was trained, and what its validation rows said.

    Attributes
    ----------
    title, architecture : str
        Of the recipe.
    weights : str
        What it began from.
    teacher, teacher_digest, teacher_knows : str
        Name and digest of the model that taught it, and what that has learned; empty without one.
    imitation : float
        Share of what it learned that are the teacher's probabilities.
    seen, of : int
        Images that it had learned from before, of all of training and validation.
    images, seed, epochs, best_epoch : int
        Of the training.
    data_digest, recipe_digest : str
        Of both.
    """

    title: str
    architecture: str
    weights: str
    teacher: str
    teacher_digest: str
    teacher_knows: str
    imitation: float
    seen: int
    of: int
    images: int
    seed: int
    epochs: int
    best_epoch: int
    data_digest: str
    recipe_digest: str

    @classmethod
    def of_provenance(cls, values: Mapping[str, Any]) -> TrainingReport | None:
        """Read the provenance that a training run writes.

        Parameters
        ----------
        values : mapping
            Of a bundle, digest checked.

        Returns
        -------
        TrainingReport or None
            None where it says less, as of what earlier versions trained.
        """
        if not {"recipe", "start"} <= {*values}:
            return None
        recipe, start, digest = values["recipe"], values["start"], values.get("teacher", "")
        return cls(
            title=recipe["title"],
            architecture=recipe["model"]["architecture"],
            weights=start["weights"],
            teacher=recipe["train"].get("teacher", ""),
            teacher_digest=digest,
            teacher_knows=start["teacher"],
            imitation=recipe["train"].get("imitation", 0.0),
            seen=start["seen"],
            of=start["of"],
            images=values["training_images"],
            seed=values["seed"],
            epochs=values["epochs"],
            best_epoch=values["best_epoch"],
            data_digest=values["manifest_digest"],
            recipe_digest=values["recipe_digest"],
        )


def _known(**values: Any) -> Document:
    """What is not None."""
    return {name: value for name, value in values.items() if value is not None}
