"""A recipe is everything that decides what is trained: frozen, TOML, no unknown keys."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

from leuko.architectures import PIXELS, Architecture, find_architecture
from leuko.errors import BundleError, RecipeError
from leuko.imaging.preprocess import PreprocessSpec
from leuko.support.artifacts import digest_json

__all__ = [
    "AugmentSettings",
    "DataSettings",
    "ModelSettings",
    "Recipe",
    "TrainSettings",
    "list_recipes",
    "load_recipe",
]

_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "data.split": ("slide", "random-file"),
    "data.balance": ("files", "fixed", "sampled", "none"),
    "augment.kind": ("none", "published", "gentle", "microscope", "domain-randomisation"),
    "model.pixels": tuple(PIXELS),
    "model.train": ("all", "head"),
    "train.schedule": ("constant", "cosine"),
    "train.monitor": ("val_accuracy", "val_loss", "none"),
}


_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Which rows are trained on, and how often.

    Attributes
    ----------
    split : {"slide", "random-file"}
        ``slide`` keeps every slide on one side. ``random-file`` draws from the balanced files
        whatever their slide or original, as the published experiment did: it leaks.
    validation : float
        Fraction of rows that go to validation.
    balance : {"files", "fixed", "sampled", "none"}
        ``files``: the whole of Train is balanced on disk before the split, as published.
        ``fixed``: after the split, training rows are balanced by a fixed list of augmented
        copies. ``sampled``: every batch is drawn by class, with fresh augmentation.
    evenness : float
        For ``sampled``: 1 draws every class equally often, 0 as often as it occurs.
    slide_evenness : float
        For ``sampled``: the same for the slides within a class. Above 0, no slide with many
        images of a class stands for the class.
    per_class : int
        For ``fixed``: images of each class after balancing; 0 takes the largest class's count.
    """

    split: str = "slide"
    validation: float = 0.2
    balance: str = "sampled"
    evenness: float = 1.0
    slide_evenness: float = 0.0
    per_class: int = 0


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How a training image is varied.

    Attributes
    ----------
    kind : {"none", "published", "gentle", "microscope", "domain-randomisation"}
        ``published``: rotation within 15 degrees, zoom within 10%, horizontal flip. ``microscope``:
        any rotation and flip, scale, shift, and stain and light varied in optical density.
        ``gentle``: the same with rotation within 15 degrees of upright or upside down, which a
        small network without pooling learns sooner. ``domain-randomisation``: what another
        laboratory may do to a cell, see `leuko.training.randomisation`; for the views of a cell.
    scale : float
        Standard deviation of the logarithm of the scale.
    shift : float
        Largest shift, as a fraction of the crop's side.
    stain : float
        Standard deviation of the 3x3 mixing of optical densities; light varies with it.
    alone, swap : float
        For ``domain-randomisation``: shares of draws that show the cell on an empty ground, and on
        the surroundings of another cell.
    flat, soft : float
        For ``domain-randomisation``: shares of draws in styles near those of `leuko.cells.texture`.
    """

    kind: str = "microscope"
    scale: float = 0.12
    shift: float = 0.06
    stain: float = 0.05
    alone: float = 0.0
    swap: float = 0.0
    flat: float = 0.0
    soft: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which network.

    Attributes
    ----------
    architecture : str
        Name in `leuko.architectures.ARCHITECTURES`.
    pixels : str
        How RGB 0-255 is scaled inside the graph, a name of `leuko.architectures.PIXELS`; what the
        architecture was made for where none is given. ``divided-twice`` is the published fault.
    train : {"all", "head"}
        Whether the backbone learns too.
    weights : str
        ``none``, ``imagenet``, ``leuko`` (of MobileNetV2) or the path of a weights file.
    width : float
        Of the MobileNets: how many channels each layer has, against the usual network's 1.0.
    hidden : int
        Units of the head's hidden layer; 0 for a linear head.
    dropout : float
        Dropped fraction before the last layer.
    norm_momentum : float
        Momentum of every BatchNormalization that learns. Keras's MobileNetV2 has 0.999, with
        which a short fine-tuning leaves the statistics of ImageNet in place.

    Raises
    ------
    RecipeError
        When no such architecture is registered, or it cannot be had so.
    """

    architecture: str = "cnn"
    pixels: str = ""
    train: str = "all"
    weights: str = "none"
    width: float = 1.0
    hidden: int = 8
    dropout: float = 0.0
    norm_momentum: float = 0.99

    def __post_init__(self) -> None:
        name, network = self.architecture, self.network
        if not self.pixels:
            object.__setattr__(self, "pixels", network.pixels)
        if self.train == "head" and not network.has_backbone:
            raise RecipeError(f"model.train 'head' needs a backbone; {name} has none.")
        if self.weights != "none" and not network.has_backbone:
            raise RecipeError(f"{name} starts from nothing; model.weights must be 'none'.")
        if self.weights == "leuko" and not network.bundled:
            raise RecipeError(
                f"Leuko has no weights of its own for {name}; model.weights must be 'imagenet', "
                "'none' or the path of a weights file."
            )
        if self.width != 1 and not network.has_widths:
            raise RecipeError(
                f"{name} has one width; model.width must be 1, received {self.width}."
            )

    @property
    def network(self) -> Architecture:
        """What is registered of the architecture."""
        return find_architecture(self.architecture)


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How it is fitted. Every callback is Keras's own.

    Attributes
    ----------
    epochs : int
        Largest number of epochs.
    steps : int
        Batches an epoch, where classes are sampled; 0 draws as many rows as there are.
    batch : int
        Images a batch.
    rate : float
        Learning rate of AdamW, the highest one of a schedule.
    decay : float
        Weight decay of AdamW.
    schedule : {"constant", "cosine"}
        ``cosine`` rises for a twentieth of all steps, then falls to nought.
    smoothing : float
        Label smoothing.
    teacher : str
        A model whose probabilities for the training images are learned beside their labels
        (distillation, Hinton et al. 2015), as a name of the zoo or a path; empty for none.
    imitation : float
        Share of the teacher in what is learned; the rest is the label.
    monitor : {"val_accuracy", "val_loss", "none"}
        What chooses the best epoch; ``none`` keeps the last.
    patience : int
        EarlyStopping; 0 switches it off.
    plateau : int
        Patience of ReduceLROnPlateau on the validation loss, factor 0.5; 0 switches it off.
    """

    epochs: int = 10
    steps: int = 0
    batch: int = 32
    rate: float = 1e-3
    decay: float = 0.004
    schedule: str = "constant"
    smoothing: float = 0.0
    teacher: str = ""
    imitation: float = 0.7
    monitor: str = "val_accuracy"
    patience: int = 0
    plateau: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides a training run, but for the data and the seed's use.

    Attributes
    ----------
    name : str
        Short name, the file's stem.
    title : str
        For people and tables.
    seed : int
        Of every random choice.
    preprocess : PreprocessSpec
        Input size and crop.
    data, augment, model, train
        See the settings of those names.
    published : dict
        Figures that the literature gives for this recipe, for tables only.
    remarks : tuple of str
        What a person should know of the file that it was read from.
    """

    name: str
    title: str
    preprocess: PreprocessSpec
    seed: int = 0
    data: DataSettings = field(default_factory=DataSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    published: dict[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 over every setting."""
        return digest_json(self.to_dict())

    def with_seed(self, seed: int) -> Recipe:
        """Give the same recipe with another seed.

        Parameters
        ----------
        seed : int
            Not negative.

        Returns
        -------
        Recipe
            A copy.

        Raises
        ------
        RecipeError
            When the seed is negative or above 2,147,483,647.
        """
        return replace(self, seed=_checked_seed(seed, "The recipe"))

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values.

        Returns
        -------
        dict
            What `from_dict` reads.
        """
        document: dict[str, Any] = {"name": self.name, "title": self.title, "seed": self.seed}
        document["preprocess"] = self.preprocess.to_dict()
        for section in ("data", "augment", "model", "train"):
            settings = getattr(self, section)
            document[section] = {f.name: getattr(settings, f.name) for f in fields(settings)}
        document["published"] = dict(self.published)
        return document

    def to_toml(self) -> str:
        """Write every resolved setting as TOML.

        Returns
        -------
        str
            Text that `load_recipe` reads back to an equal recipe.
        """
        document = self.to_dict()
        lines = [f"{key} = {_toml(document.pop(key))}" for key in ("name", "title", "seed")]
        for section, values in document.items():
            if values:
                lines += ["", f"[{section}]"]
                lines += [f"{_toml_key(key)} = {_toml(value)}" for key, value in values.items()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_dict(cls, document: dict[str, Any], *, source: str = "The recipe") -> Recipe:
        """Check and freeze nested values.

        Parameters
        ----------
        document : dict
            As read from TOML.
        source : str
            Where it came from, for messages.

        Returns
        -------
        Recipe
            With defaults filled in.

        Raises
        ------
        RecipeError
            On an unknown key, a missing one, a wrong type or a value out of range.
        """
        known = ("name", "title", "seed", "preprocess", "data", "augment", "model", "train",
                 "published")  # fmt: skip
        _refuse_unknown(document, known, source, "")
        for key in ("name", "preprocess"):
            if key not in document:
                raise RecipeError(f"{source} lacks {key!r}.")
        document, remarks = _in_words_of_today({"title": document["name"], **document})
        for key in ("name", "title"):
            if not isinstance(document[key], str):
                raise RecipeError(f"{source}: {key} must be text, received {document[key]!r}.")
        if not _NAME.fullmatch(document["name"]):
            # Run folders are called after it.
            raise RecipeError(
                f"{source}: name must be letters, digits, dots, hyphens and underscores, and "
                f"begin with a letter or a digit; received {document['name']!r}."
            )
        seed = _checked_seed(document.get("seed", 0), source)
        published = document.get("published", {})
        if not isinstance(published, dict) or not all(
            type(value) in (int, float) and -1e9 < value < 1e9 for value in published.values()
        ):
            raise RecipeError(f"{source}: [published] must be a table of numbers.")
        sections: dict[str, Any] = {}
        for section, kind in _SECTIONS.items():
            sections[section] = _section(kind, document.get(section, {}), source, section)
        if not isinstance(document["preprocess"], dict):
            raise RecipeError(
                f"{source}: [preprocess] must be a table, received {document['preprocess']!r}."
            )
        _refuse_unknown(document["preprocess"], _PREPROCESS, source, "preprocess.")
        try:
            preprocess = PreprocessSpec.from_dict(document["preprocess"])
        except BundleError as error:
            raise RecipeError(f"{source}: [preprocess] is wrong: {error}") from error
        recipe = cls(
            name=document["name"],
            title=document["title"],
            seed=seed,
            preprocess=preprocess,
            published={key: float(value) for key, value in published.items()},
            remarks=remarks,
            **sections,
        )
        _check_together(recipe, source)
        return recipe


_SECTIONS: Final[dict[str, type]] = {
    "data": DataSettings,
    "augment": AugmentSettings,
    "model": ModelSettings,
    "train": TrainSettings,
}

_OF_BEFORE: Final[dict[tuple[str, str, str | None], tuple[str, str | None]]] = {
    ("preprocess", "micrometre", None): ("pixels_per_micrometre", None),
    ("augment", "kind", "travel"): ("kind", "domain-randomisation"),
}
"""What was renamed: a section's key, and its value where that is a word, to what it is now."""

_PREPROCESS: Final = tuple(entry.name for entry in fields(PreprocessSpec))

_RANGES: Final[dict[str, tuple[float, float]]] = {
    "data.validation": (0.02, 0.5),
    "data.evenness": (0.0, 1.0),
    "data.slide_evenness": (0.0, 1.0),
    "data.per_class": (0, 1_000_000),
    "augment.scale": (0.0, 1.0),
    "augment.shift": (0.0, 0.5),
    "augment.stain": (0.0, 1.0),
    "augment.alone": (0.0, 1.0),
    "augment.swap": (0.0, 1.0),
    "augment.flat": (0.0, 1.0),
    "augment.soft": (0.0, 1.0),
    "model.width": (0.1, 2.0),
    "model.hidden": (0, 4096),
    "model.dropout": (0.0, 0.9),
    "model.norm_momentum": (0.0, 0.9999),
    "train.epochs": (1, 10_000),
    "train.steps": (0, 1_000_000),
    "train.batch": (1, 1024),
    "train.rate": (1e-8, 10.0),
    "train.decay": (0.0, 10.0),
    "train.smoothing": (0.0, 0.9),
    "train.imitation": (0.0, 1.0),
    "train.patience": (0, 10_000),
    "train.plateau": (0, 10_000),
}


def list_recipes() -> list[str]:
    """Names of the recipes that come with Leuko.

    Returns
    -------
    list of str
        Sorted.
    """
    folder = resources.files("leuko") / "recipes"
    return sorted(
        e.name.removesuffix(".toml") for e in folder.iterdir() if e.name.endswith(".toml")
    )


def load_recipe(name: str | os.PathLike[str]) -> Recipe:
    """Open a recipe by its name or its path.

    Parameters
    ----------
    name : str or path-like
        One of `list_recipes`, or a path: a path has a separator or ends in ``.toml``.

    Returns
    -------
    Recipe
        Checked.

    Raises
    ------
    RecipeError
        When there is none of that name, or it is wrong.

    Examples
    --------
    >>> load_recipe("cnn").preprocess.size
    (324, 324)
    """
    text = os.fspath(name)
    if os.sep in text or "/" in text or text.endswith(".toml"):
        path = Path(os.path.expanduser(text))
        try:
            data = path.read_bytes()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise RecipeError(f"{path} cannot be read: {why}.") from error
    else:
        if text not in list_recipes():
            close = difflib.get_close_matches(text, list_recipes(), 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise RecipeError(
                f"There is no recipe {text!r}; there are {', '.join(list_recipes())}.{hint}"
            )
        data = (resources.files("leuko") / "recipes" / f"{text}.toml").read_bytes()
    try:
        document = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{text} is not TOML: {error}.") from error
    return Recipe.from_dict(document, source=text)


def _in_words_of_today(document: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Read what files of before called otherwise, and say so."""
    remarks = []
    for (section, key, value), (new_key, new_value) in _OF_BEFORE.items():
        found = document.get(section)
        if isinstance(found, dict) and key in found and value in (None, found[key]):
            kept = {name: one for name, one in found.items() if name != key}
            now = found[key] if new_value is None else new_value
            document = {**document, section: {**kept, new_key: now}}
            remarks.append(f"[{section}] {key} = {found[key]!r} is {new_key} = {now!r} now.")
    return document, tuple(remarks)


def _checked_seed(seed: Any, source: str) -> int:
    """Give the seed back, or say why it is none."""
    if type(seed) is not int or not 0 <= seed < 2**31:
        raise RecipeError(
            f"{source}: seed must be a whole number from 0 to {2**31 - 1}, received {seed!r}."
        )
    return seed


def _refuse_unknown(
    document: dict[str, Any], known: tuple[str, ...], source: str, prefix: str
) -> None:
    """Raise on a key that means nothing here, with the nearest one that does."""
    for key in document:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}."
            raise RecipeError(f"{source} has the unknown key {prefix + key!r}.{hint}")


def _section(kind: type, values: Any, source: str, section: str) -> Any:
    """Check one section against its dataclass."""
    if not isinstance(values, dict):
        raise RecipeError(f"{source}: [{section}] must be a table, received {values!r}.")
    types = get_type_hints(kind)
    _refuse_unknown(values, tuple(types), source, f"{section}.")
    checked: dict[str, Any] = {}
    for key, value in values.items():
        where = f"{section}.{key}"
        wanted = types[key]
        right = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if not right or isinstance(value, bool):
            names = " or ".join(t.__name__ for t in (get_args(wanted) or (wanted,)))
            raise RecipeError(f"{source}: {where} must be {names}, received {value!r}.")
        if where in _CHOICES and value not in _CHOICES[where]:
            raise RecipeError(
                f"{source}: {where} must be one of {', '.join(_CHOICES[where])}; "
                f"received {value!r}."
            )
        if where in _RANGES and not _RANGES[where][0] <= value <= _RANGES[where][1]:
            low, high = _RANGES[where]
            raise RecipeError(f"{source}: {where} must lie in [{low}, {high}], received {value}.")
        checked[key] = wanted(value)
    try:
        return kind(**checked)
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from None


def _check_together(recipe: Recipe, source: str) -> None:
    """Refuse settings that contradict each other."""
    data, model, train = recipe.data, recipe.model, recipe.train
    if (data.split == "random-file") != (data.balance == "files"):
        raise RecipeError(
            f"{source}: data.split 'random-file' and data.balance 'files' belong together; "
            f"received {data.split!r} and {data.balance!r}."
        )
    if min(recipe.preprocess.size) < model.network.smallest:
        raise RecipeError(
            f"{source}: {model.architecture} needs pictures of {model.network.smallest} pixels or "
            f"more; received preprocess.size {list(recipe.preprocess.size)}."
        )
    if model.train == "head" and data.balance == "sampled":
        raise RecipeError(
            f"{source}: a frozen backbone is run once over a fixed set; choose data.balance "
            "'fixed', 'files' or 'none'."
        )
    shown_as_they_are = data.balance == "files" or (
        data.balance == "none" and model.train == "head"
    )
    if shown_as_they_are and recipe.augment.kind != "none":
        raise RecipeError(
            f"{source}: images of data.balance {data.balance!r} are shown as they are here; choose "
            f"augment.kind 'none', received {recipe.augment.kind!r}."
        )
    if train.steps and data.balance != "sampled":
        raise RecipeError(
            f"{source}: with data.balance {data.balance!r} an epoch shows every row once; "
            "train.steps belongs to 'sampled'."
        )
    if train.teacher and model.train == "head":
        raise RecipeError(f"{source}: train.teacher needs model.train 'all'.")
    if (recipe.augment.kind == "domain-randomisation") != (recipe.preprocess.view != "centre"):
        raise RecipeError(
            f"{source}: augment.kind 'domain-randomisation' and a view of the cell belong "
            f"together; received {recipe.augment.kind!r} and preprocess.view "
            f"{recipe.preprocess.view!r}."
        )
    if recipe.augment.alone + recipe.augment.swap > 1:
        raise RecipeError(f"{source}: augment.alone and augment.swap must not exceed 1 together.")
    if recipe.augment.flat + recipe.augment.soft > 1:
        raise RecipeError(f"{source}: augment.flat and augment.soft must not exceed 1 together.")
    if train.monitor == "none" and train.patience:
        raise RecipeError(f"{source}: train.patience needs a train.monitor.")
    if train.schedule == "cosine" and train.plateau:
        raise RecipeError(f"{source}: train.plateau needs train.schedule 'constant'.")


def _toml_key(key: str) -> str:
    """Write one TOML key, quoted where it must be."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)


def _toml(value: Any) -> str:
    """Write one TOML value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        # TOML allows no control characters in a string, however they got there.
        return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda m: f"\\u{ord(m[0]):04x}", escaped) + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, float):
        text = repr(value)
        return text if any(mark in text for mark in ".einf") else f"{text}.0"
    return str(value)
