"""How often pictures without a white cell are refused, and real cells with them.

    python experiments/trust_refusals.py default DATA
    python experiments/trust_refusals.py default DATA --compare Dataset

DATA holds ``raabin-wbc-288`` and ``fields``, and ``cellavision`` and ``jtsc`` where there are any.
Prints Markdown. A picture counts as refused when it is decided to be ``not-a-cell`` or
``unlike-training``; ``unsure`` does not count. Nothing was chosen on Test-A or on the half called
``held``. ``--compare`` measures other distances on the same features, with the limit that 1% of the
validation pictures exceed when their slide is left out; docs/decisions/0010 has the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from add_trust import validation_rows
from trust_negatives import HALVES, Negative, negatives

from leuko.bundle import ModelBundle
from leuko.data.reading import read_folder
from leuko.errors import ImageError
from leuko.imaging.decode import encode_png
from leuko.manifest import Manifest
from leuko.prediction import Prediction
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.trust.calibrate import without_trust
from leuko.runtime.trust.fit import deal_slides, outlier_limit
from leuko.runtime.zoo import load
from leuko.scheme import load_scheme
from leuko.source import Source, bytes_source, file_source
from leuko.statistics import calibration_bins, expected_calibration_error

CLASSES = load_scheme("differential-5").names

Table = npt.NDArray[np.float64]
Distance = Callable[[Table], Table]
REFUSED = ("not-a-cell", "unlike-training")
COVERAGE = 0.95


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=Path, help="A folder of further photographs.")
    parser.add_argument("--compare", type=Path, metavar="DATASET", help="As for leuko train.")
    arguments = parser.parse_args()
    classifier = load(arguments.model)
    without = list(negatives(arguments.data, arguments.pictures))
    print(f"{classifier.name}, digest {classifier.digest[:16]}\n")
    tell_refusals(classifier, without)
    for name in ("raabin-wbc-288/Test", "cellavision", "jtsc"):
        if (arguments.data / name).is_dir():
            tell_cells(classifier, read_folder(arguments.data / name), name)
    if arguments.compare is not None:
        bundle = classifier.bundle
        recipe, digest = bundle.provenance["recipe"], bundle.provenance["manifest_digest"]
        held = validation_rows(arguments.compare, recipe, digest)
        compare(bundle, held, read_folder(arguments.data / "raabin-wbc-288/Test"), without)


def tell_refusals(classifier: OnnxClassifier, pictures: list[Negative]) -> None:
    """Refused share of every kind."""
    rows = list(classifier.stream(as_sources(pictures)))
    refused = np.array([row.decision in REFUSED for row in rows])
    print("| no white cell | develop | n | held | n |\n|---|---|---|---|---|")
    for kind in [*dict.fromkeys(one.kind for one in pictures), "all"]:
        cells = []
        for half in HALVES:
            own = [one.half == half and kind in (one.kind, "all") for one in pictures]
            cells += [f"{refused[own].mean():.3f}" if any(own) else "", f"{sum(own)}"]
        print(f"| {kind} | {' | '.join(cells)} |")
    print()


def tell_cells(classifier: OnnxClassifier, manifest: Manifest, name: str) -> None:
    """What becomes of real cells."""
    rows = classifier.predict(manifest.files()).rows
    labels, values = manifest.labels, np.array([row.probabilities for row in rows])
    right = values.argmax(axis=1) == labels
    decisions = np.array([row.decision for row in rows])
    sure = np.argsort(-values.max(axis=1), kind="stable")[: round(COVERAGE * len(rows))]
    stands = decisions == "class"
    error = expected_calibration_error(calibration_bins(labels, values))
    print(f"{name}: {len(rows)} cells, accuracy {right.mean():.4f}, ECE {error:.4f}")
    shares = {reason(row) for row in rows}
    told = {key: np.mean([reason(row) == key for row in rows]) for key in sorted(shares)}
    print("  " + ", ".join(f"{key} {share:.4f}" for key, share in told.items()))
    print(f"  refused {np.isin(decisions, REFUSED).mean():.4f}")
    print(f"  accuracy of the {COVERAGE:.0%} most confident {right[sure].mean():.4f}, "
          f"of class {right[stands].mean() if stands.any() else 0:.4f}")  # fmt: skip
    sets = [CLASSES[label] in row.prediction_set for label, row in zip(labels, rows, strict=True)]
    size = np.mean([len(row.prediction_set) for row in rows])
    print(f"  prediction sets hold the true class {np.mean(sets):.4f}, mean size {size:.3f}\n")


def compare(bundle: ModelBundle, held: Manifest, test: Manifest, pictures: list[Negative]) -> None:
    """Other distances, by what they refuse at a limit that was set in the same way."""
    classifier = OnnxClassifier(without_trust(bundle), features=True)
    validation = observed(classifier, [file_source(file) for file in held.files()])
    tests = observed(classifier, [file_source(file) for file in test.files()])
    others = observed(classifier, as_sources(pictures))
    labels, develop = held.labels, np.array([one.half == "develop" for one in pictures])
    folds = deal_slides(labels, list(held.slides), 0)
    print("| distance | Test-A refused | develop refused | held refused |\n|---|---|---|---|")
    for name, fit in methods().items():
        apart = np.zeros(len(labels))
        for fold in np.unique(folds):
            own = folds == fold
            apart[own] = fit(validation.part(~own), labels[~own])(validation.part(own))
        limit, distance = outlier_limit(apart, alarms=0.01), fit(validation, labels)
        no, yes = distance(others) > limit, distance(tests) > limit
        print(
            f"| {name} | {yes.mean():.4f} | {no[develop].mean():.3f} | {no[~develop].mean():.3f} |"
        )


@dataclass(frozen=True)
class Observed:
    """Probabilities and features of many pictures."""

    probabilities: Table
    features: Table

    def part(self, rows: npt.NDArray[np.bool_]) -> Observed:
        """Some of them."""
        return Observed(self.probabilities[rows], self.features[rows])


def observed(classifier: OnnxClassifier, sources: list[Source]) -> Observed:
    """Run the network."""
    found = [one for one in classifier.observe(sources) if not isinstance(one, ImageError)]
    values = np.stack([one.probabilities for one in found])
    return Observed(values, np.stack([one.features for one in found]).astype(np.float64))


def methods() -> dict[str, Callable[[Observed, Table], Callable[[Observed], Table]]]:
    """What is compared: fit(observed, labels) gives distance(observed)."""
    table = {"1 - largest probability (Hendrycks and Gimpel 2017)": confidence}
    table["Mahalanobis, 64 axes (Lee et al. 2018)"] = mahalanobis(64)
    table["the same, relative (Ren et al. 2021)"] = mahalanobis(64, relative=True)
    table["64 axes, features of length 1"] = mahalanobis(64, length=True)
    for axes in (16, 32, 64):
        name = f"{axes} axes, length 1, and across the axes"
        table[name] = mahalanobis(axes, length=True, across=True)
    table["10th nearest neighbour, 64 axes, length 1 (Sun et al. 2022)"] = neighbour
    return table


def confidence(_: Observed, __: Table) -> Callable[[Observed], Table]:
    """What a network is least sure of."""
    return lambda given: 1 - given.probabilities.max(axis=1)


def mahalanobis(
    axes: int, *, length: bool = False, relative: bool = False, across: bool = False
) -> Callable[[Observed, Table], Callable[[Observed], Table]]:
    """Mahalanobis's distance from the nearest class, in its variants."""

    def scaled(given: Observed) -> Table:
        values = given.features
        return values / np.linalg.norm(values, axis=1, keepdims=True) if length else values

    def fit(given: Observed, labels: Table) -> Callable[[Observed], Table]:
        values = scaled(given)
        mean = values.mean(axis=0)
        offsets = values - mean
        directions = np.linalg.eigh(offsets.T @ offsets)[1][:, -axes:]
        along = offsets @ directions
        means = np.stack([along[labels == c].mean(axis=0) for c in np.unique(labels)])
        within = along - means[np.unique(labels, return_inverse=True)[1]]
        inverse = np.linalg.inv(within.T @ within / len(values))
        whole = np.linalg.inv(along.T @ along / len(values))
        rest = np.square(offsets).sum(axis=1) - np.square(along).sum(axis=1)
        spread = rest.mean() / (values.shape[1] - axes)

        def distance(new: Observed) -> Table:
            offset = scaled(new) - mean
            place = offset @ directions
            apart = place[:, None] - means
            squares = np.einsum("nci,ij,ncj->nc", apart, inverse, apart).min(axis=1)
            if relative:
                squares = squares - np.einsum("ni,ij,nj->n", place, whole, place)
            if across:
                others = np.square(offset).sum(axis=1) - np.square(place).sum(axis=1)
                squares = squares + others / spread
            return squares

        return distance

    return fit


def neighbour(given: Observed, _: Table) -> Callable[[Observed], Table]:
    """Distance from the tenth nearest picture."""
    scale = np.linalg.norm(given.features, axis=1, keepdims=True)
    mean = (given.features / scale).mean(axis=0)
    offsets = given.features / scale - mean
    directions = np.linalg.eigh(offsets.T @ offsets)[1][:, -64:]
    known = offsets @ directions

    def distance(new: Observed) -> Table:
        values = new.features / np.linalg.norm(new.features, axis=1, keepdims=True)
        place = (values - mean) @ directions
        squares = np.square(place).sum(axis=1)[:, None] + np.square(known).sum(axis=1)
        return np.partition(squares - 2 * place @ known.T, 9, axis=1)[:, 9]

    return distance


def as_sources(pictures: list[Negative]) -> list[Source]:
    """Pictures as files in memory."""
    return [
        bytes_source(f"{number}", encode_png(one.pixels)) for number, one in enumerate(pictures)
    ]


def reason(row: Prediction) -> str:
    """Decision and reason in one word."""
    return row.reason or row.decision


if __name__ == "__main__":
    main()
