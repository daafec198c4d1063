"""Time prediction against what a user would use instead, and against what the machine can do.

For every model, in one run and in turn: Leuko from files to rows of a CSV; the published way
(`keras.utils.image_dataset_from_directory` and `model.predict`); Keras with `tf.data` done well;
and the three parts alone, each on all cores: libjpeg-turbo decoding, cropping, and ONNX Runtime
called on arrays, in the faster of two ways. The limit is 1 / (1/decode + 1/crop + 1/inference).
Medians count. Files are 575 x 575 JPEGs with a comment each, so that no two are equal; they lie in
the system's page cache, and nothing else is kept from one timing to the next.

    LEUKO_DATA=... python benchmarks/bench_predict.py [--quick] [--model PATH ...] [--out FILE]

Without LEUKO_DATA the pictures are drawn. Bundled models and two untrained networks are timed;
`--model` adds bundles, such as one that `leuko export --int8` wrote. The table is printed and,
unless --quick, written to docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import predict_rivals as rivals
from bench_limits import megabytes_of, seconds_of

from leuko.bundle import ModelBundle
from leuko.cells.texture import first_view
from leuko.data.synth import draw_cell, draw_slide_style
from leuko.imaging.decode import encode_jpeg
from leuko.imaging.preprocess import PreprocessSpec
from leuko.prediction_files import csv_cells, csv_line, csv_names
from leuko.recipe import load_recipe
from leuko.runtime.classifier import Observation, OnnxClassifier
from leuko.runtime.repeats import mark_repeats
from leuko.runtime.sources import expand
from leuko.runtime.zoo import zoo_models
from leuko.scheme import load_scheme
from leuko.source import bytes_source
from leuko.support.artifacts import atomic_write_text
from leuko.support.host import machine, versions
from leuko.support.memory import keep_freed_memory
from leuko.support.parallel import worker_count

CLASSES = load_scheme("differential-5").names

SIDE = 575
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


@dataclass
class Subject:
    """One model with everything that was measured of it, in images a second."""

    title: str
    bundle: ModelBundle
    recipe: dict[str, Any] | None
    timings: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Keep one timing."""
        self.timings.setdefault(name, []).append(value)

    def rate(self, name: str) -> float:
        """Median of the timings of one kind; not-a-number where there are none."""
        return statistics.median(self.timings.get(name) or [float("nan")])

    @property
    def limit(self) -> float:
        """What the three parts would allow one after the other."""
        return 1 / sum(1 / self.rate(part) for part in ("decode", "crop", "inference"))


def originals() -> tuple[list[bytes], str]:
    """JPEG files of 575 x 575, and what they are."""
    data = os.environ.get("LEUKO_DATA")
    sample = Path(data or ".") / "raabin-wbc-original-sample"
    files = sorted(sample.rglob("*.jpg")) if data else []
    if files:
        return [file.read_bytes() for file in files], f"{len(files)} originals of Raabin-WBC"
    rng = np.random.default_rng(0)
    cells = [draw_cell(name, rng, draw_slide_style(rng), size=SIDE) for name in CLASSES * 6]
    drawn = [encode_jpeg(cell.pixels, quality=95, subsampling="420") for cell in cells]
    return drawn, "30 drawn cells, as LEUKO_DATA does not point to the original sample"


def write_files(folder: Path, count: int, files: list[bytes]) -> list[bytes]:
    """Repeat files under new names, each with a comment of its own; return what was written."""
    folder.mkdir()
    written = []
    for number, data in enumerate(islice(cycle(files), count)):
        words = f"number {number:08d}".encode()
        remark = b"\xff\xfe" + (len(words) + 2).to_bytes(2, "big") + words
        written.append(data[:2] + remark + data[2:])
        (folder / f"{number:08d}.jpg").write_bytes(written[-1])
    return written


def on_all_cores(work: Any, items: list[Any], count: int) -> float:
    """Calls a second of a function that releases Python's lock, on as many threads as cores."""
    threads = worker_count(None)

    def share(first: int) -> None:
        for number in range(first, count, threads):
            work(items[number % len(items)])

    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        list(pool.map(share, range(threads)))
        return count / (time.perf_counter() - started)


def decode_for(spec: PreprocessSpec) -> Any:
    """libjpeg-turbo's decoding, as small as the preprocessing asks for."""
    import simplejpeg

    factor = spec.reduction(SIDE, SIDE)
    least = -(-SIDE // factor)
    small = {"min_height": least, "min_width": least} if factor > 1 else {}
    return lambda data: simplejpeg.decode_jpeg(data, colorspace="RGB", **small)


def inference(bundle: ModelBundle, count: int) -> float:
    """Images a second of ONNX Runtime on arrays: all cores on a batch, or a batch on each core."""
    import onnxruntime

    def session(threads: int) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(
            bundle.onnx, options, providers=["CPUExecutionProvider"]
        )

    cores = worker_count(None)
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 255, (rivals.BATCH, *bundle.preprocess.size, 3)).astype(np.float32)
    together, alone = session(cores), session(1)
    name = alone.get_inputs()[0].name
    best = 0.0
    for batch in (8, rivals.BATCH):
        together.run(None, {name: pixels[:batch]})
        runs = max(1, count // batch)
        started = time.perf_counter()
        for _ in range(runs):
            together.run(None, {name: pixels[:batch]})
        best = max(best, runs * batch / (time.perf_counter() - started))
    for batch in (1, 2, 4):
        alone.run(None, {name: pixels[:batch]})
        part = [pixels[:batch]]
        runs = max(cores, count // batch)
        rate = on_all_cores(lambda array: alone.run(None, {name: array}), part, runs)
        best = max(best, rate * batch)
    return best


def leuko(classifier: OnnxClassifier, folder: Path, out: Path) -> float:
    """Images a second from files to rows of a CSV, as `leuko predict` makes them."""
    started = time.perf_counter()
    done = 0
    with out.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(csv_names(classifier.bundle.scheme)))
        for row in mark_repeats(classifier.stream(expand([str(folder)]))):
            assert row.status == "ok", row
            file.write(csv_line(csv_cells(row, classifier.bundle.scheme)))
            done += 1
    return done / (time.perf_counter() - started)


def subjects(child: Any, temporary: Path, extra: list[Path], say: Any) -> list[Subject]:
    """Models to time: bundled ones, the two published networks, and what the user adds."""
    found = []
    for name, path in zoo_models().items():
        bundle = ModelBundle.load(path)
        found.append(Subject(f"`{name}`", bundle, bundle.provenance.get("recipe")))
    for name, title in (
        ("published-mobilenetv2", "MobileNetV2"),
        ("published-cnn", "published CNN"),
    ):
        recipe = load_recipe(name)
        # The published way resizes bilinearly, which is what scaled preprocessing ends in.
        recipe = replace(recipe, preprocess=replace(recipe.preprocess, scaled=True))
        path = child.submit(rivals.export, recipe.to_dict(), temporary / f"{name}.zip").result()
        found.append(Subject(title, ModelBundle.load(path), recipe.to_dict()))
    for path in extra:
        bundle = ModelBundle.load(path)
        title = bundle.name if path.stem == "bundle" else path.stem
        found.append(Subject(title, bundle, bundle.provenance.get("recipe")))
    if not any("int8" in subject.title for subject in found):
        say("int8 is not timed: no bundle of that kind. Write one with `leuko export M --int8` and "
            "give it with --model.")  # fmt: skip
    if not any("small" in subject.title for subject in found):
        say("`small` is not timed: this install has no such model.")
    return found


def viewed_again(classifier: OnnxClassifier, files: list[bytes]) -> list[bool]:
    """Which pictures a model looks at in every style."""
    again = classifier.trust.again
    if again is None:
        return [True] * len(files)
    seen = classifier.observe(bytes_source("", data) for data in files)
    features = [one.first_features for one in seen if isinstance(one, Observation)]
    return again(np.stack(features)).tolist()


def measure(subject: Subject, child: Any, folders: dict[str, Path], files: list[bytes],
            counts: dict[str, int], temporary: Path) -> None:  # fmt: skip
    """One round of everything for one model."""
    spec = subject.bundle.preprocess
    decode = decode_for(spec)
    pixels = [decode(data) for data in files[:150]]  # all that differ
    classifier = OnnxClassifier(subject.bundle)
    again = viewed_again(classifier, files[:150])
    taken = 1 + (len(spec.styles) - 1) * sum(again) / len(again)

    def crop(picture: tuple[Any, bool]) -> None:
        others = first_view(picture[0], spec).others
        if picture[1]:
            others()

    subject.add("decode", on_all_cores(decode, files, counts["parts"]))
    subject.add("crop", on_all_cores(crop, [*zip(pixels, again, strict=True)], counts["parts"]))
    subject.add("inference", inference(subject.bundle, counts["inference"]) / taken)
    subject.add("leuko", leuko(classifier, folders["all"], temporary / "answers.csv"))
    if subject.recipe is not None:
        for name, way in (("published", rivals.published), ("tf_data", rivals.tf_data)):
            ask = child.submit(way, subject.recipe, folders["rivals"], counts["rivals"])
            subject.add(name, ask.result())


def table(found: list[Subject]) -> str:
    """The comparison as Markdown."""
    lines = [
        "| model | input | Leuko | limit | of it | published way | times | tf.data | times |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for subject in found:
        mine = subject.rate("leuko")
        cells = [subject.title, words(subject.bundle.preprocess), f"{mine:.0f}/s",
                 f"{subject.limit:.0f}/s", f"{mine / subject.limit:.0%}"]  # fmt: skip
        for name in ("published", "tf_data"):
            other = subject.rate(name)
            cells += ["–", "–"] if np.isnan(other) else [f"{other:.0f}/s", f"{mine / other:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parts_table(found: list[Subject]) -> str:
    """What the limit is made of, as Markdown."""
    lines = ["| model | decode | crop and resize | ONNX Runtime |", "|---|--:|--:|--:|"]
    for subject in found:
        rates = [f"{subject.rate(part):.0f}/s" for part in ("decode", "crop", "inference")]
        lines.append(f"| {subject.title} | {' | '.join(rates)} |")
    return "\n".join(lines)


def words(spec: PreprocessSpec) -> str:
    """Preprocessing in a few words."""
    part = "whole" if spec.crop == 1 else f"central {spec.crop:.0%}"
    if spec.view != "centre":
        part = "view of the cell"
    if len(spec.styles) > 1:
        part += f", {len(spec.styles)} views"
    return f"{spec.size[0]} px, {part}{', scaled' if spec.scaled else ''}"


def limits(folder: Path, one: Path, counts: dict[str, int], temporary: Path) -> str:
    """Start-up and memory of whole processes, as Markdown."""
    command = [sys.executable, "-m", "leuko", "predict"]
    bare = seconds_of([sys.executable, "-c", "pass"], counts["starts"])
    imported = seconds_of([sys.executable, "-c", "import leuko"], counts["starts"]) - bare
    answered = seconds_of([*command, str(one)], counts["starts"])
    lines = [
        f"- `import leuko`: {imported:.2f} s more than Python itself.",
        f"- `leuko predict` from the command to the first answer: {answered:.2f} s.",
    ]
    peaks = []
    for count in (counts["memory"] // 10, counts["memory"]):
        many = temporary / f"many-{count}"
        many.mkdir()
        for number, source in enumerate(islice(cycle(sorted(folder.iterdir())), count)):
            os.link(source, many / f"{number:07d}.jpg")
        out = temporary / "memory.csv"
        peaks.append(f"{megabytes_of([*command, str(many), '--csv', str(out)]):.0f} MB")
        subprocess.run(["rm", "-r", str(many)], check=True)
    lines.append(
        f"- Peak memory of `leuko predict`: {peaks[0]} for {counts['memory'] // 10:,} files, "
        f"{peaks[1]} for {counts['memory']:,}."
    )
    return "\n".join(lines)


def page(found: list[Subject], extra: str, what: str, counts: dict[str, int]) -> str:
    """Everything as one Markdown page."""
    told = machine()
    named = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"""# Benchmarks of prediction

Written by `make bench` (`benchmarks/bench_predict.py`); do not edit. Images a second, start-up
excluded, median of {counts["rounds"]} rounds in which everything was timed in turn.

{table(found)}

The limit is 1 / (1/decode + 1/crop + 1/inference), each part alone on all cores:

{parts_table(found)}

{extra}

## How

- {counts["all"]:,} JPEGs of 575 x 575 ({what}), each with a comment of its own; the rivals read
  the first {counts["rivals"]:,}. All lie in the page cache; nothing is kept between timings.
- Leuko: from the folder to the rows of a CSV, with a SHA-256 of every file.
- Published way: `keras.utils.image_dataset_from_directory` and `model.predict`, batch 32, whole
  pictures resized bilinearly. Both rivals ask the network once, and do not look for the cell.
- tf.data: Keras with `tf.data`; the crop alone is decoded, in parallel and ahead of the network,
  which is one compiled function; batch 32.
- ONNX Runtime: called on arrays, the faster of one batch on all cores and a batch on each core;
  once for each view of them that a model takes.
- MobileNetV2 and the published CNN have fresh weights; their speed does not depend on them.
- "scaled": see `scaled` in [recipes](reference/recipes.md).
- {told["processor"]}, {told["cores"]} cores, {told["system"]}; {named}.
"""


def main() -> None:
    """Measure, print the page, and write it unless --quick."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few files, one round, no page")
    parser.add_argument("--files", type=int, default=6_000)
    parser.add_argument("--rival-files", type=int, default=960)
    parser.add_argument("--memory-files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, action="append", default=[], help="another bundle")
    parser.add_argument("--out", type=Path, help=f"default: docs/{PAGE.name}, unless --quick")
    arguments = parser.parse_args()
    counts = {
        "all": arguments.files, "rivals": arguments.rival_files, "rounds": arguments.rounds,
        "memory": arguments.memory_files, "parts": 2_000, "inference": 480, "starts": 7,
    }  # fmt: skip
    if arguments.quick:
        counts = {"all": 64, "rivals": 64, "rounds": 1, "memory": 100, "parts": 60,
                  "inference": 32, "starts": 1}  # fmt: skip
    cv2.setNumThreads(1)  # as the command line does, and the following
    keep_freed_memory()

    def say(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="leuko-bench-") as name,
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child,
    ):
        temporary = Path(name)
        files, what = originals()
        written = write_files(temporary / "all", counts["all"], files)
        write_files(temporary / "rivals", counts["rivals"], files)
        folders = {kind: temporary / kind for kind in ("all", "rivals")}
        found = subjects(child, temporary, arguments.model, say)
        for number in range(counts["rounds"]):
            for subject in found:
                say(f"Round {number + 1} of {counts['rounds']}: {subject.title}")
                measure(subject, child, folders, written, counts, temporary)
        one = folders["all"] / "00000000.jpg"
        text = page(found, limits(folders["all"], one, counts, temporary), what, counts)
    print(text)
    out = arguments.out or (None if arguments.quick else PAGE)
    if out is not None:
        atomic_write_text(out, text)


if __name__ == "__main__":
    main()
