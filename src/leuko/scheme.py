"""Classes are data: the cells that a data set, a model or a table tells apart, as one value."""

from __future__ import annotations

import functools
import os
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

from leuko.errors import DataError, UsageError

__all__ = [
    "DIFFERENTIAL_5",
    "MOST_CLASSES",
    "RAABIN_NUMBERS",
    "CellClass",
    "ClassScheme",
    "common_scheme",
    "describe_numbers",
    "infer_scheme",
    "is_known_class",
    "is_number",
    "known_name",
    "known_schemes",
    "load_scheme",
    "merging",
    "scheme_in",
    "scheme_of",
    "slug_of",
]

MOST_CLASSES: Final = 100
"""A scheme has 2 to so many classes."""

RAABIN_NUMBERS: Final = {
    "1": "Neutrophil",
    "2": "Lymphocyte",
    "3": "Monocyte",
    "4": "Eosinophil",
    "5": "Basophil",
}
"""Raabin-WBC's label files number the classes in the order in which its paper lists them."""

_KNOWN: Final = ("differential-5", "differential-6", "pbc-8")

# Twelve that differ by at least 18 (CIE76) to normal eyes and to each of the three common colour
# blindnesses (Machado, Oliveira and Fernandes 2009, severity 1).
_COLOURS: Final = (
    "#5b5fc7", "#d1495b", "#2a9d8f", "#8d6a9f", "#e09f3e", "#10dcdc",
    "#7c1c58", "#344c1c", "#946410", "#7c10f4", "#a0acf4", "#c4c494",
)  # fmt: skip

_COLOUR: Final = re.compile(r"#[0-9a-f]{6}")
_NUMBERING: Final = re.compile(r"^\d+[\s_.-]+")
_KEYS: Final = ("abbreviation", "aliases", "colour", "counted", "range", "broader")


@dataclass(frozen=True, slots=True)
class CellClass:
    """One class of cells.

    Attributes
    ----------
    name : str
        As people write it, in any script.
    abbreviation : str
        For axes that have little room.
    colour : str
        As ``#rrggbb``.
    aliases : tuple of str
        What else a folder or a label may call it.
    counted : bool
        Whether it enters the denominator of a differential count.
    range : (float, float) or None
        Percent of all white cells in healthy adults; None where no range is known.
    broader : str
        The class that it may be merged into; empty when there is none.
    """

    name: str
    abbreviation: str
    colour: str
    aliases: tuple[str, ...] = ()
    counted: bool = True
    range: tuple[float, float] | None = None
    broader: str = ""

    def __post_init__(self) -> None:
        """Refuse what could not be shown or stored."""
        fits = self.name.strip() and self.name.isprintable() and len(self.name) <= 100
        if not fits or {*self.name} & {*"/\\"} or self.name.startswith("."):
            raise DataError(
                f"A class is called {self.name!r}; a name has 1 to 100 letters and may be a "
                "folder's."
            )
        if not _COLOUR.fullmatch(self.colour):
            raise DataError(
                f"The class {self.name} has the colour {self.colour!r}; expected #rrggbb."
            )
        if self.range is not None and not 0 <= self.range[0] <= self.range[1] <= 100:
            raise DataError(
                f"The class {self.name} has the range {self.range}; expected two percentages, the "
                "lower first."
            )

    @property
    def slug(self) -> str:
        """Its name in the columns of files.

        Examples
        --------
        >>> scheme_of(["Immature granulocyte", "中性粒细胞"]).slugs
        ('immature_granulocyte', '中性粒细胞')
        """
        return slug_of(self.name)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON values.

        Returns
        -------
        dict
            Without what has its default.
        """
        values: dict[str, Any] = {
            "name": self.name,
            "abbreviation": self.abbreviation,
            "colour": self.colour,
            "counted": self.counted,
        }
        if self.aliases:
            values["aliases"] = list(self.aliases)
        if self.range is not None:
            values["range"] = list(self.range)
        if self.broader:
            values["broader"] = self.broader
        return values


@dataclass(frozen=True)
class ClassScheme:
    """The classes of a data set, a model or a table, in the order of every probability vector.

    Attributes
    ----------
    name : str
        Such as ``differential-5``; ``own`` for one that was taken from folders or labels.
    classes : tuple of CellClass
        2 to `MOST_CLASSES`.
    ranges_source : str
        Where the reference ranges are from.

    Examples
    --------
    >>> scheme = load_scheme("differential-6")
    >>> scheme.names[0], scheme.slugs[0], scheme.find("bands")
    ('Band neutrophil', 'band_neutrophil', 0)
    """

    name: str
    classes: tuple[CellClass, ...]
    ranges_source: str = ""

    def __post_init__(self) -> None:
        """Refuse a scheme that could not tell its classes apart."""
        if not 2 <= len(self.classes) <= MOST_CLASSES:
            raise DataError(
                f"The scheme {self.name} has {len(self.classes)} classes; expected 2 to "
                f"{MOST_CLASSES}."
            )
        for what, values in (
            ("name", [_plain(name) for name in self.names]),
            ("column", self.slugs),
        ):
            twice = sorted({value for value in values if values.count(value) > 1 or not value})
            if twice:
                raise DataError(
                    f"The scheme {self.name} has classes of one {what}: {', '.join(twice)}; give "
                    "each a name of its own."
                )

    def __len__(self) -> int:
        """Count the classes."""
        return len(self.classes)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(one.name for one in self.classes)

    @functools.cached_property
    def slugs(self) -> tuple[str, ...]:
        """Names in the columns of files, in order."""
        return tuple(one.slug for one in self.classes)

    @functools.cached_property
    def hatches(self) -> tuple[int, ...]:
        """How many earlier classes have the same colour: 0 is drawn plain, others hatched."""
        colours = [one.colour for one in self.classes]
        return tuple(colours[:place].count(colour) for place, colour in enumerate(colours))

    @functools.cached_property
    def counted(self) -> tuple[bool, ...]:
        """Which classes enter the denominator of a differential count, in order."""
        return tuple(one.counted for one in self.classes)

    @functools.cached_property
    def _meanings(self) -> dict[str, int]:
        """Position by every name that is understood; names come before aliases."""
        meanings: dict[str, int] = {}
        for place, one in enumerate(self.classes):
            for alias in one.aliases:
                meanings.setdefault(_plain(alias), place)
        return meanings | {_plain(name): place for place, name in enumerate(self.names)}

    def find(self, text: str) -> int | None:
        """Find the class that a folder name or a label means.

        Case, accents, surrounding space, ``_`` and ``-`` for a space, a plural ``s`` and a leading
        number (``01_Neutrophil``) are forgiven.

        Parameters
        ----------
        text : str
            A folder name or a label.

        Returns
        -------
        int or None
            Its position, or None when the text means no class of this scheme.
        """
        for tried in (text, _NUMBERING.sub("", text.strip())):
            plain = _plain(tried)
            for form in (plain, plain.removesuffix("s")):
                if form in self._meanings:
                    return self._meanings[form]
        return None

    def describe(self) -> str:
        """One line that tells a person which names are understood.

        Returns
        -------
        str
            The names with what else is accepted for each.
        """
        parts = [
            f"{one.name} ({', '.join(one.aliases)})" if one.aliases else one.name
            for one in self.classes
        ]
        return "; ".join(parts) + "; any case, plural or not"

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain JSON values.

        Returns
        -------
        dict
            For `from_dict`.
        """
        return {
            "name": self.name,
            "classes": [one.to_dict() for one in self.classes],
            "ranges_source": self.ranges_source,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClassScheme:
        """Read what `to_dict` gives.

        Parameters
        ----------
        values : mapping
            From a file that nobody vouches for.

        Returns
        -------
        ClassScheme
            Checked.

        Raises
        ------
        DataError
            When it is something else.
        """
        try:
            classes = tuple(_read_class(one["name"], one) for one in values["classes"])
            return cls(str(values["name"]), classes, str(values.get("ranges_source", "")))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"A class scheme cannot be read: {error!r}.") from error


def known_schemes() -> tuple[str, ...]:
    """Name the schemes that come with Leuko.

    Returns
    -------
    tuple of str
        For `load_scheme`.
    """
    return _KNOWN


def load_scheme(name: str | os.PathLike[str]) -> ClassScheme:
    """Open a scheme that comes with Leuko, or one of the user's.

    A file names its classes in order, ``classes = ["Basophil", ...]``. What is known of a class
    (`schemes/classes.toml`) need not be repeated; a table ``[class.Basophil]`` changes it or tells
    it: abbreviation, aliases, colour, counted, range, broader.

    Parameters
    ----------
    name : str or path-like
        One of `known_schemes`, or the path of a ``.toml`` file.

    Returns
    -------
    ClassScheme
        Checked.

    Raises
    ------
    DataError
        When there is no such scheme, or the file cannot be understood.
    """
    text = os.fspath(name)
    if text in _KNOWN:
        return _bundled(text)
    if not text.endswith(".toml"):
        raise DataError(
            f"There is no class scheme {text!r}; expected {', '.join(_KNOWN)} or a .toml file."
        )
    path = Path(os.path.expanduser(text))
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a class scheme: {error}.") from error
    return _from_toml(document, path.stem, str(path))


def scheme_in(document: Mapping[str, Any]) -> ClassScheme:
    """Read the scheme of a document, also of one from before documents had schemes.

    Parameters
    ----------
    document : mapping
        With ``scheme``, or with a list ``classes`` of names, or of a routine differential.

    Returns
    -------
    ClassScheme
        Checked.

    Raises
    ------
    DataError
        When what stands there is none.
    """
    if "scheme" in document:
        return ClassScheme.from_dict(document["scheme"])
    names = document.get("classes")
    return scheme_of(names) if isinstance(names, list) else load_scheme(DIFFERENTIAL_5)


def scheme_of(names: Sequence[str], *, name: str = "own") -> ClassScheme:
    """Make a scheme of names in a given order; what is known of them is filled in.

    Parameters
    ----------
    names : sequence of str
        Of the classes. Those of a scheme that comes with Leuko give that scheme.
    name : str
        Of the scheme.

    Returns
    -------
    ClassScheme
        Each class with a colour of its own, while there are twelve.
    """
    for known in _KNOWN:
        if _bundled(known).names == tuple(names):
            return _bundled(known)
    return ClassScheme(name, _coloured([_known_class(one) for one in names]))


def infer_scheme(names: Iterable[str]) -> ClassScheme:
    """Find the scheme that folders or labels are of.

    Parameters
    ----------
    names : iterable of str
        Every folder's or label's name.

    Returns
    -------
    ClassScheme
        The first that comes with Leuko and has a class for each name, no two names for one;
        otherwise the names themselves, sorted.

    Examples
    --------
    >>> infer_scheme(["eosinophils", "NEUT", "baso"]).name
    'differential-5'
    >>> infer_scheme(["round", "sickle"]).names
    ('round', 'sickle')
    """
    given = sorted({*names})
    for known in _KNOWN:
        places = [_bundled(known).find(name) for name in given]
        if None not in places and len({*places}) == len(given):
            return _bundled(known)
    return scheme_of(given)


def merging(
    source: ClassScheme, target: ClassScheme, explicit: Mapping[str, str] | None = None
) -> tuple[int | None, ...]:
    """Where each class of one scheme goes in another.

    Parameters
    ----------
    source, target : ClassScheme
        From and to.
    explicit : mapping of str to str, optional
        Names of `source` to names of `target`, which come before everything else.

    Returns
    -------
    tuple of int or None
        Positions in `target`; None for a class that has no counterpart. A class goes to the one of
        its name or alias, otherwise to the broader one that it may be merged into.

    Raises
    ------
    UsageError
        When `explicit` names a class that a scheme lacks.

    Examples
    --------
    >>> merging(load_scheme("differential-6"), load_scheme("differential-5"))
    (4, 0, 1, 2, 3, 4)
    """
    told: dict[int, int] = {}
    for from_, to in (explicit or {}).items():
        here, there = source.find(from_), target.find(to)
        if here is None or there is None:
            lacking, name = (source, from_) if here is None else (target, to)
            raise UsageError(
                f"{name!r} is no class of {lacking.name}; expected {', '.join(lacking.names)}."
            )
        told[here] = there
    return tuple(
        told[place] if place in told else _counterpart(one, target)
        for place, one in enumerate(source.classes)
    )


def common_scheme(
    data: ClassScheme, model: ClassScheme, explicit: Mapping[str, str] | None = None
) -> tuple[ClassScheme, tuple[int | None, ...], tuple[int, ...]]:
    """Find the classes in which a model can be measured on data of another scheme.

    Classes of the data that the model merges are merged; where the model tells apart what the data
    does not, its answers are merged instead.

    Parameters
    ----------
    data, model : ClassScheme
        Of the labels, and of the answers.
    explicit : mapping of str to str, optional
        See `merging`; names of `data` to names of `model`.

    Returns
    -------
    scheme : ClassScheme
        The model's, but for classes that are merged.
    labels : tuple of int or None
        Where each class of the data goes in it; None for one that has no counterpart.
    answers : tuple of int
        Where each class of the model goes in it.

    Examples
    --------
    >>> six, five = load_scheme("differential-6"), load_scheme("differential-5")
    >>> common_scheme(five, six)[0].names[-1], common_scheme(five, six)[2]
    ('Neutrophil', (4, 0, 1, 2, 3, 4))
    """
    labels = merging(data, model, explicit)
    lost = {place for place, to in enumerate(labels) if to is None}
    back = [place if place in lost else None for place in merging(model, data)]
    if not any(place is not None for place in back):
        return model, labels, tuple(range(len(model)))
    names = [one for place, one in enumerate(model.classes) if back[place] is None]
    merged = [data.classes[place] for place in sorted({p for p in back if p is not None})]
    scheme = ClassScheme(model.name, (*names, *merged), model.ranges_source)
    answers = tuple(
        scheme.names.index(one.name if place is None else data.classes[place].name)
        for one, place in zip(model.classes, back, strict=True)
    )
    moved = tuple(
        answers[to] if to is not None else (scheme.names.index(one.name) if one in merged else None)
        for one, to in zip(data.classes, labels, strict=True)
    )
    return scheme, moved, answers


def slug_of(name: str) -> str:
    """Name of a class in the columns of files.

    Parameters
    ----------
    name : str
        As people write it.

    Returns
    -------
    str
        Small letters and digits of any script, with ``_`` between words.
    """
    return re.sub(r"\W+", "_", name.casefold()).strip("_")


def is_number(name: str) -> bool:
    """Whether a folder's name or a label is a number and nothing else.

    Parameters
    ----------
    name : str
        A folder name or a label.

    Returns
    -------
    bool
    """
    return re.fullmatch(r"\d+(\.0*)?", name.strip(), re.ASCII) is not None


def describe_numbers() -> str:
    """Say in one sentence why numbers alone are no class names.

    Returns
    -------
    str
        With the orders that are in use.

    References
    ----------
    Raabin-WBC's numbers: Kouzehkanan et al., Scientific Reports 12:1123, 2022.
    """
    raabin = ", ".join(f"{number} {name}" for number, name in RAABIN_NUMBERS.items())
    return (
        f"A number may mean several classes: Raabin-WBC counts {raabin}; the alphabet counts "
        "Basophil first, from 0 or from 1."
    )


def is_known_class(name: str) -> bool:
    """Whether something is known of the class that a folder or a label names.

    Parameters
    ----------
    name : str
        A folder name or a label.

    Returns
    -------
    bool
        Of case, plural and a leading number as `ClassScheme.find` is.
    """
    return bool(known_name(name))


def known_name(name: str) -> str:
    """Name the class that a folder or a label means, whatever scheme it is of.

    Parameters
    ----------
    name : str
        A folder name or a label.

    Returns
    -------
    str
        As the catalogue has it; empty where nothing is known of it. Of case, plural and a leading
        number as `ClassScheme.find` is.

    Examples
    --------
    >>> known_name("02_bands"), known_name("WBC")
    ('Band neutrophil', '')
    """
    for form in (_plain(name), _plain(_NUMBERING.sub("", name.strip()))):
        known = _catalogue().get(form) or _catalogue().get(form.removesuffix("s"))
        if known is not None:
            return known.name
    return ""


def _counterpart(one: CellClass, target: ClassScheme) -> int | None:
    """The class of a scheme that a class is, or may be merged into."""
    passed: set[str] = set()
    while one.name not in passed:
        passed.add(one.name)
        for name in (one.name, *one.aliases):
            place = target.find(name)
            if place is not None:
                return place
        if not one.broader:
            return None
        one = _known_class(one.broader)
    return None


def _plain(text: str) -> str:
    """Names that a person would take for one: no case, accents, or kinds of space."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(c for c in letters if not unicodedata.combining(c))
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", bare)).strip()


@functools.cache
def _catalogue() -> dict[str, CellClass]:
    """What is known of each class, by every name of it."""
    text = resources.files("leuko").joinpath("schemes/classes.toml").read_text(encoding="utf-8")
    classes = [_read_class(name, values) for name, values in tomllib.loads(text).items()]
    found = {_plain(alias): one for one in classes for alias in one.aliases}
    return found | {_plain(one.name): one for one in classes}


def _known_class(name: str) -> CellClass:
    """A class by its name, with all that is known of it; the name stays as it was given."""
    bare = _plain(name)
    known = _catalogue().get(bare) or _catalogue().get(bare.removesuffix("s"))
    if known is None:
        return CellClass(name, name[:5].upper(), _COLOURS[0], broader="")
    own = (known.name, *known.aliases) if known.name != name else known.aliases
    return replace(known, name=name, aliases=own)


def _coloured(classes: Sequence[CellClass], told: Iterable[str] = ()) -> tuple[CellClass, ...]:
    """Give a class whose colour is taken, or that has none of its own, the next free one."""
    kept = {*told}
    used = [one.colour for one in classes if one.name in kept]
    result: list[CellClass] = []
    for one in classes:
        known = _catalogue().get(_plain(one.name)) is not None
        colour = one.colour
        if one.name not in kept and (not known or colour in used):
            fewest = min(used.count(free) for free in _COLOURS)
            colour = next(free for free in _COLOURS if used.count(free) == fewest)
        if one.name not in kept:
            used.append(colour)
        result.append(replace(one, colour=colour))
    return tuple(result)


@functools.cache
def _bundled(name: str) -> ClassScheme:
    """A scheme that comes with Leuko."""
    text = resources.files("leuko").joinpath(f"schemes/{name}.toml").read_text(encoding="utf-8")
    return _from_toml(tomllib.loads(text), name, name)


def _from_toml(document: Mapping[str, Any], name: str, where: str) -> ClassScheme:
    """Understand a scheme's file."""
    extra = {*document} - {"title", "classes", "class", "ranges_source", "name"}
    names, tables = document.get("classes"), document.get("class", {})
    if extra or not isinstance(names, list) or not isinstance(tables, dict):
        raise DataError(
            f"{where} is no class scheme: expected classes = [...], and [class.NAME] tables where "
            f"needed; received {', '.join(document) or 'nothing'}."
        )
    lacking = [one for one in tables if one not in names]
    if lacking:
        raise DataError(f"{where} tells of {', '.join(lacking)}, which is not among its classes.")
    classes = [
        _read_class(str(one), tables.get(str(one), {}), _known_class(str(one))) for one in names
    ]
    told = [one for one, values in tables.items() if "colour" in values]
    return ClassScheme(
        str(document.get("name", name)),
        _coloured(classes, told),
        str(document.get("ranges_source", "")),
    )


def _read_class(name: str, values: Mapping[str, Any], known: CellClass | None = None) -> CellClass:
    """Understand what a file says of a class, over what is known of it."""
    unknown = {*values} - {*_KEYS, "name"}
    if unknown:
        raise DataError(
            f"The class {name} has {', '.join(sorted(unknown))}; expected {', '.join(_KEYS)}."
        )
    start = known or CellClass(str(name), str(name)[:5].upper(), _COLOURS[0])
    told = {key: values[key] for key in _KEYS if key in values}
    if "aliases" in told:
        told["aliases"] = tuple(map(str, told["aliases"]))
    if told.get("range") is not None:
        low, high = told["range"]
        told["range"] = (float(low), float(high))
    return replace(start, **told)


DIFFERENTIAL_5: Final = "differential-5"
"""The scheme of a routine differential."""
