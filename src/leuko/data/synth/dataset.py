"""A whole drawn data set on disk: slides, class imbalance, masks, fields, one JSON that says so."""

from __future__ import annotations

import functools
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.data.synth.kinds import KINDS
from leuko.data.synth.scene import Box, draw_cell, draw_field
from leuko.data.synth.style import SlideStyle, draw_slide_style
from leuko.errors import OutputError, UsageError
from leuko.imaging.decode import encode_jpeg, encode_png
from leuko.scheme import ClassScheme
from leuko.support.artifacts import (
    RESEARCH_USE,
    atomic_write_bytes,
    atomic_write_json,
    digest_json,
    prepare_folder,
    schema,
)
from leuko.support.reporter import SILENT, Reporter

__all__ = ["DEFAULT_MIX", "SmearPlan", "draw_dataset", "mix_of"]

DEFAULT_MIX: Final[Mapping[str, float]] = {
    "Basophil": 212 / 10175,
    "Eosinophil": 744 / 10175,
    "Lymphocyte": 2427 / 10175,
    "Monocyte": 561 / 10175,
    "Neutrophil": 6231 / 10175,
}
"""Share of each class in Raabin-WBC's Train (Kouzehkanan et al., 2022)."""

_RECORD: Final = "drawn.json"
_STYLE, _CELL, _FIELD, _LAYOUT = range(4)  # streams of randomness, kept apart by number


def mix_of(scheme: ClassScheme) -> dict[str, float]:
    """Share of each class of a scheme: as in `DEFAULT_MIX`, and a twentieth of any other.

    Parameters
    ----------
    scheme : ClassScheme
        Of classes that can be drawn.

    Returns
    -------
    dict of str to float
        For `SmearPlan`.

    Raises
    ------
    UsageError
        When a class cannot be drawn.
    """
    strange = [name for name in scheme.names if name not in KINDS]
    if strange:
        raise UsageError(
            f"No {', '.join(strange)} can be drawn; expected classes of {', '.join(KINDS)}."
        )
    return {name: DEFAULT_MIX.get(name, 0.05) for name in scheme.names}


@dataclass(frozen=True, slots=True)
class SmearPlan:
    """What to draw: cells, slides and classes. Equal plans give equal bytes.

    Attributes
    ----------
    train, test : int
        Cells to draw for each split, at least three of each class; ``test=0`` draws none.
    seed : int
        Of everything that is drawn.
    slides : tuple of 2 ints
        Number of slides in Train and in Test.
    shared_slides : int
        How many of Test's slides are slides of Train too, as in Raabin-WBC.
    size : int
        Height and width of a crop in pixels.
    imbalance : mapping of str to float
        Relative frequency of each class, of `leuko.data.synth.kinds.KINDS`, in the order that
        they are recorded.
    masks : bool
        Write a mask beside every picture.
    fields : int
        Number of whole fields to draw, spread over all slides.

    Raises
    ------
    UsageError
        When a setting makes no sense.
    """

    train: int = 200
    test: int = 100
    seed: int = 0
    slides: tuple[int, int] = (10, 5)
    shared_slides: int = 0
    size: int = 288
    imbalance: Mapping[str, float] = field(default_factory=lambda: DEFAULT_MIX)
    masks: bool = False
    fields: int = 0

    def __post_init__(self) -> None:
        least = 3 * len(self.imbalance)
        if self.train < least or (self.test and self.test < least):
            raise UsageError(
                f"Each split needs at least {least} cells, three of each class; received "
                f"train={self.train}, test={self.test}. Use test=0 to draw no test set."
            )
        if self.seed < 0:
            raise UsageError(f"The seed must not be negative; received {self.seed}.")
        if min(self.slides) < 1 or not 0 <= self.shared_slides <= min(self.slides):
            raise UsageError(
                "Train and Test need one slide at least and share no more than they have; received "
                f"slides={tuple(self.slides)}, shared_slides={self.shared_slides}."
            )
        if self.size < 32:
            raise UsageError(f"size must be at least 32 pixels; received {self.size}.")
        mix = self.imbalance
        if len(mix) < 2 or not {*mix} <= {*KINDS} or min(mix.values()) <= 0:
            raise UsageError(
                f"imbalance needs a positive number for each of two or more of {', '.join(KINDS)}; "
                f"received {dict(mix)}."
            )
        if self.fields < 0:
            raise UsageError(f"fields must be 0 or more; received fields={self.fields}.")

    def numbers(self, split: str) -> list[int]:
        """Numbers of the slides of ``Train`` or ``Test``."""
        first, last = self.slides
        start = 0 if split == "Train" else first - self.shared_slides
        return list(range(start + 1, start + 1 + (first if split == "Train" else last)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the record of a data set."""
        return {**{name: getattr(self, name) for name in self.__slots__},
                "slides": list(self.slides), "imbalance": dict(self.imbalance)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Task:
    """One picture to draw: plain values only, so that it can go to another process."""

    out: str
    name: str
    folder: str
    label: str
    seed: int
    slide: int
    index: int
    size: int
    masks: bool


def draw_dataset(
    out: Path,
    plan: SmearPlan | None = None,
    *,
    workers: int = 1,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Draw a data set of single cells, laid out and named as Raabin-WBC is.

    Files are ``out/Train/<class>/S01_12_1.jpg`` and ``out/Test/...`` (slide, field, cell);
    masks go to ``out/masks/...`` (255 nucleus, 128 cytoplasm, 0 elsewhere) and fields to
    ``out/fields/images`` and ``out/fields/labels`` (YOLO boxes: 0 white cell, 1 red cell,
    2 platelet). ``out/drawn.json`` says what was drawn. A stopped run goes on where it was when
    it is called again with the same plan.

    Parameters
    ----------
    out : Path
        Folder of the data set.
    plan : SmearPlan, optional
        What to draw.
    workers : int
        Processes; how many makes no difference to what is drawn.
    reporter : Reporter, optional
        Told after each picture.

    Returns
    -------
    dict
        What was drawn, as written to ``drawn.json``: settings, classes, counts for each split
        and slide, and the style of every slide.

    Raises
    ------
    UsageError
        When there is no worker.
    OutputError
        When `out` holds another data set or cannot be written.
    """
    if workers < 1:
        raise UsageError(f"workers must be 1 or more; received workers={workers}.")
    out, plan = Path(out), plan or SmearPlan()
    tasks: list[_Task] = []
    counts: dict[str, dict[str, dict[str, int]]] = {}
    taken: dict[int, int] = {}
    for split, total in (("Train", plan.train), ("Test", plan.test)):
        if total:
            chosen, table = _lay_out(out, split, total, plan, taken)
            tasks += chosen
            counts[split] = table
    everywhere = sorted({number for split in counts for number in plan.numbers(split)})
    for index in range(plan.fields):
        slide = everywhere[index % len(everywhere)]
        name = f"{_slide_name(slide)}_{1000 + index}"
        tasks.append(_Task(str(out), name, "fields", "", plan.seed, slide, index, plan.size,
                           plan.masks))  # fmt: skip
    summary = _summary(plan, counts, everywhere)
    _claim(out, summary)
    draw = functools.partial(_draw_task, styles={n: _style(plan.seed, n) for n in everywhere})
    with _mapper(workers, len(tasks)) as mapper:
        for done, _ in enumerate(mapper(draw, tasks), 1):
            reporter.progress("drawing", done, len(tasks))
    summary["complete"] = True
    atomic_write_json(out / _RECORD, summary)
    return summary


def _class_counts(total: int, mix: Mapping[str, float]) -> dict[str, int]:
    """Cells of each class: by share, with a floor of 3 (5 where there is room for it)."""
    floor = 5 if total >= 60 else 3
    share = np.array([*mix.values()])
    small = np.zeros(len(mix), dtype=np.bool_)
    while True:
        rest = np.where(small, 0.0, share)
        wanted = np.where(small, floor, (total - floor * small.sum()) * rest / rest.sum())
        if not (wanted < floor).any():
            break
        small |= wanted < floor
    counts = np.floor(wanted).astype(int)
    order = np.argsort(counts - wanted, kind="stable")  # largest remainder first
    counts[order[: total - counts.sum()]] += 1
    return {name: int(count) for name, count in zip(mix, counts, strict=True)}


def _lay_out(
    out: Path, split: str, total: int, plan: SmearPlan, taken: dict[int, int]
) -> tuple[list[_Task], dict[str, dict[str, int]]]:
    """Deal the cells of one split to its slides and name them."""
    numbers = plan.numbers(split)
    rng = np.random.default_rng([plan.seed, _LAYOUT, 0 if split == "Train" else 1])
    weights = rng.dirichlet(np.full(len(numbers), 4.0))
    held: dict[int, list[str]] = {number: [] for number in numbers}
    for label, count in _class_counts(total, plan.imbalance).items():
        # One cell to each slide first, in random order; the rest by the slides' own sizes.
        first = rng.permutation(len(numbers))[:count]
        rest = rng.choice(len(numbers), size=count - first.size, p=weights)
        for place in (*first, *rest):
            held[numbers[int(place)]].append(label)
    tasks = []
    for number, labels in held.items():
        for place in rng.permutation(len(labels)):
            index = taken.get(number, 0)
            taken[number] = index + 1
            name = f"{_slide_name(number)}_{1 + index // 2}_{1 + index % 2}"
            tasks.append(_Task(str(out), name, split, labels[int(place)], plan.seed, number, index,
                               plan.size, plan.masks))  # fmt: skip
    table = {
        _slide_name(number): {name: labels.count(name) for name in plan.imbalance}
        for number, labels in held.items()
    }
    return tasks, table


def _slide_name(number: int) -> str:
    """Slide id as it stands before the first underscore of a file name."""
    return f"S{number:02d}"


def _style(seed: int, slide: int) -> SlideStyle:
    """Style of one slide of a data set."""
    return draw_slide_style(np.random.default_rng([seed, _STYLE, slide]))


def _draw_task(task: _Task, styles: Mapping[int, SlideStyle]) -> None:
    """Draw one picture and write it, unless it is there."""
    out, style = Path(task.out), styles[task.slide]
    if task.folder == "fields":
        _draw_field_task(task, out, style)
        return
    place = Path(task.folder) / task.label
    picture = out / place / f"{task.name}.jpg"
    mask = out / "masks" / place / f"{task.name}.png"
    if picture.exists() and (mask.exists() or not task.masks):
        return
    rng = np.random.default_rng([task.seed, _CELL, task.slide, task.index])
    cell = draw_cell(task.label, rng, style, size=task.size)
    if task.masks:
        atomic_write_bytes(mask, encode_png(_paint_mask(cell.nucleus, cell.cell)), durable=False)
    _write_picture(picture, cell.pixels, style)


def _draw_field_task(task: _Task, out: Path, style: SlideStyle) -> None:
    """Draw one field with its boxes; the picture is written last and marks the set whole."""
    picture = out / "fields" / "images" / f"{task.name}.jpg"
    if picture.exists():
        return
    rng = np.random.default_rng([task.seed, _FIELD, task.slide, task.index])
    field = draw_field(None, rng, style)
    height, width = field.cell.shape
    kinds = ((0, field.boxes), (1, field.red_boxes), (2, field.platelet_boxes))
    lines = [_yolo(kind, box, height, width) for kind, boxes in kinds for box in boxes]
    labels = out / "fields" / "labels" / f"{task.name}.txt"
    atomic_write_bytes(labels, "".join(lines).encode(), durable=False)
    if task.masks:
        mask = out / "fields" / "masks" / f"{task.name}.png"
        atomic_write_bytes(mask, encode_png(_paint_mask(field.nucleus, field.cell)),
                           durable=False)  # fmt: skip
    _write_picture(picture, field.pixels, style)


def _write_picture(path: Path, pixels: npt.NDArray[np.uint8], style: SlideStyle) -> None:
    """JPEG as the slide's camera makes it."""
    data = encode_jpeg(pixels, quality=style.jpeg_quality, subsampling=style.jpeg_subsampling)
    atomic_write_bytes(path, data, durable=False)


def _paint_mask(
    nucleus: npt.NDArray[np.bool_], cell: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    """255 on the nucleus, 128 on the cytoplasm, 0 elsewhere."""
    return np.where(nucleus, 255, np.where(cell, 128, 0)).astype(np.uint8)


def _yolo(kind: int, box: Box, height: int, width: int) -> str:
    """One line of a YOLO label file: kind, centre and size as shares of the picture."""
    row0, col0, row1, col1 = box
    values = ((col0 + col1) / 2 / width, (row0 + row1) / 2 / height,
              (col1 - col0) / width, (row1 - row0) / height)  # fmt: skip
    return f"{kind} " + " ".join(f"{value:.6f}" for value in values) + "\n"


def _summary(
    plan: SmearPlan, counts: dict[str, dict[str, dict[str, int]]], numbers: list[int]
) -> dict[str, Any]:
    """The record of a drawn data set."""
    settings = plan.to_dict()
    totals = {
        split: {name: sum(row[name] for row in table.values()) for name in plan.imbalance}
        for split, table in counts.items()
    }
    return {
        "schema": schema("drawn"),
        "research_use": RESEARCH_USE,
        "complete": False,
        "settings": settings,
        "settings_digest": digest_json(settings),
        "classes": list(plan.imbalance),
        "counts": totals,
        "slides": counts,
        "styles": {_slide_name(number): asdict(_style(plan.seed, number)) for number in numbers},
    }


def _claim(out: Path, summary: dict[str, Any]) -> None:
    """Mark the folder as this data set's, or say why it cannot be."""
    record = out / _RECORD
    if record.exists():
        if _same_record(record, summary):
            return
        raise OutputError(
            f"{out} holds a data set that was drawn with other settings; choose another folder "
            f"or delete this one."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is not an empty folder; choose another or empty it first.")
    prepare_folder(out)
    atomic_write_json(record, summary)


def _same_record(record: Path, summary: dict[str, Any]) -> bool:
    """Whether a record on disk was written with the same settings."""
    try:
        found = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return False
    keys = ("schema", "settings_digest")
    return isinstance(found, dict) and all(found.get(key) == summary[key] for key in keys)


_Mapper = Callable[[Callable[[_Task], None], list[_Task]], Iterator[None]]


@contextmanager
def _mapper(workers: int, tasks: int) -> Iterator[_Mapper]:
    """`map` in this process, or over fresh processes; stopped at once when the block fails."""
    if workers == 1 or tasks < 2:
        yield map
        return
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield functools.partial(pool.map, chunksize=max(1, min(16, tasks // (4 * workers))))
    finally:
        pool.shutdown(cancel_futures=True)
