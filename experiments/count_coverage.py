"""Measure how often the limits of a differential count hold the true composition.

    python experiments/count_coverage.py [--repeats 500] [--draws 99] [--seed 0] [--model M]
    leuko predict Dataset/Test --csv answers.csv
    python experiments/count_coverage.py --widths answers.csv --repeats 1000 --draws 399
    python experiments/count_coverage.py --widths answers.csv --mixed others.csv

For every composition, size of count and share of accepted cells a microscope is drawn, and a count
is drawn through it. Classes are accepted unequally: their log-odds differ by a normal variable
whose standard deviation is uniform up to 1.5. Accepted cells of a class are wrong up to 5 times as
often as in the validation of the bundled model, the others up to 40% of the time, or more where
fewer are accepted (`most_wrong`), uniformly; where the errors go is drawn from a flat Dirichlet
distribution. It is noted whether the 95% limits hold the true shares, and where they are printed.

With `--widths` the second table, of the answers to pictures in one folder a class: 200 cells are
drawn from them many times, and the limits are set against the exact binomial limits of the number
of cells of the class that are truly among the 200. With `--mixed`, a part of the 200 comes from the
answers to another laboratory's pictures, and it is noted how often printed limits hold the truth.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from leuko.evaluation.counting.correction import (
    Unmeasured,
    adjusted_draws,
    design_effect,
    split_confusion,
    validation_confusion,
)
from leuko.evaluation.counting.differential import LEAST_ACCEPTED
from leuko.prediction_files import read_predictions
from leuko.runtime.zoo import load
from leuko.scheme import DIFFERENTIAL_5, load_scheme
from leuko.statistics import exact_interval

SCHEME = load_scheme(DIFFERENTIAL_5)
ABBREVIATIONS = [one.abbreviation for one in SCHEME.classes]
COMPOSITIONS = {
    "adult": (0.005, 0.03, 0.30, 0.07, 0.595),
    "eosinophilia": (0.02, 0.20, 0.20, 0.08, 0.50),
    "lymphocytosis": (0.001, 0.01, 0.80, 0.05, 0.139),
    "neutrophilia": (0.002, 0.005, 0.08, 0.04, 0.873),
    "even": (0.2, 0.2, 0.2, 0.2, 0.2),
}
SIZES = (100, 200, 400, 1000)
ACCEPTED = (0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)
AT_ONCE = 250
OFF = ~np.eye(5, dtype=bool)


def most_wrong(accepted: float) -> float:
    """Largest rate of error among cells that are not accepted, given the share of those that are.

    With 87% accepted, as in validation, it is 40%; it grows as the worst class of the development
    laboratories does: 62% with 57% accepted, 70% with 28%, 73% with 13%.
    """
    return max(0.4, 0.3 + 0.7 * (1 - accepted))


def confusions(rates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Matrices with these rates of error by class, (R, 5), and random ways: (R, 5, 5)."""
    matrix = np.zeros((len(rates), 5, 5))
    matrix[:, OFF] = (rates[..., None] * rng.dirichlet(np.ones(4), rates.shape)).reshape(-1, 20)
    matrix[:, ~OFF] = 1 - rates
    return matrix


def acceptance(
    shares: np.ndarray, mean: float, repeats: int, rng: np.random.Generator
) -> np.ndarray:
    """Probabilities of acceptance by class, (R, 5), of this mean over all cells."""
    uneven = rng.normal(size=(repeats, 5)) * rng.uniform(0, 1.5, (repeats, 1))
    low, high = np.full((repeats, 1), -20.0), np.full((repeats, 1), 20.0)
    for _ in range(50):
        middle = (low + high) / 2
        few = (shares / (1 + np.exp(-uneven - middle))).sum(axis=1, keepdims=True) < mean
        low, high = np.where(few, middle, low), np.where(few, high, middle)
    return 1 / (1 + np.exp(-uneven - middle))


def microscopes(
    shares: np.ndarray, n: int, mean: float, wrong: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Counts of accepted and other cells, (AT_ONCE, 2, 5), each by a microscope of its own."""
    taken = acceptance(shares, mean, AT_ONCE, rng)
    sure = confusions(np.minimum(0.5, wrong * rng.uniform(0, 5, (AT_ONCE, 5))), rng)
    left = confusions(rng.uniform(0, most_wrong(mean), (AT_ONCE, 5)), rng)
    seen = np.concatenate(
        [np.einsum("rk,rkj->rj", shares * taken, sure),
         np.einsum("rk,rkj->rj", shares * (1 - taken), left)], axis=1,
    )  # fmt: skip
    return rng.multinomial(n, seen / seen.sum(axis=1, keepdims=True)).reshape(-1, 2, 5)


def accepted_table(validation: dict[str, object]) -> tuple[np.ndarray, float]:
    """Accepted validation cells of a bundle, and their design effect."""
    confusion = validation_confusion(validation, SCHEME)
    if isinstance(confusion, Unmeasured):
        raise SystemExit(f"Error: the bundle's errors were not measured ({confusion.code}).")
    return split_confusion(validation, confusion).accepted, design_effect(validation)


def coverage(
    validation: dict[str, object], repeats: int, draws: int, seed: int
) -> dict[tuple[str, int, float], tuple[np.ndarray, np.ndarray]]:
    """Whether limits held, (R, 5), and were printed, (R,), for every setting."""
    table, effect = accepted_table(validation)
    wrong = 1 - table.diagonal() / table.sum(axis=1)
    found = {}
    for name, composition in COMPOSITIONS.items():
        shares = np.array(composition)
        for n in SIZES:
            for mean in ACCEPTED:
                rng = np.random.default_rng([seed, n, round(100 * mean), *name.encode()])
                held, printed = [], []
                for _ in range(-(-repeats // AT_ONCE)):
                    counts = microscopes(shares, n, mean, wrong, rng)
                    low, high = adjusted_draws(
                        counts[:, 0], counts[:, 1], table, seed=rng, draws=draws, effect=effect
                    ).limits()
                    held.append((low <= shares) & (shares <= high))
                    printed.append(counts[:, 0].sum(axis=1) >= LEAST_ACCEPTED * n)
                found[name, n, mean] = np.concatenate(held), np.concatenate(printed)
    return found


def print_coverage(
    found: dict[tuple[str, int, float], tuple[np.ndarray, np.ndarray]],
) -> None:
    """Two tables: where limits are printed, and by the share that is accepted."""
    print(f"\nPercent of printed limits that hold the truth: {' '.join(ABBREVIATIONS)}")
    for name in COMPOSITIONS:
        for n in SIZES:
            held = np.concatenate(
                [
                    all_held[shown]
                    for key, (all_held, shown) in found.items()
                    if key[:2] == (name, n)
                ]
            )
            print(f"{name:<15}{n:>6}{len(held):>7} printed  {_row(100 * held.mean(axis=0))}")
    print("\nAccepted, were all printed: lowest of all compositions, sizes and classes, mean, "
          "printed")  # fmt: skip
    for mean in ACCEPTED:
        cells = [(key, *found[key]) for key in found if key[2] == mean]
        rates = np.array([100 * held.mean(axis=0) for _, held, _ in cells])
        worst = np.unravel_index(rates.argmin(), rates.shape)
        name, n, _ = cells[worst[0]][0]
        shown = 100 * np.mean([part.mean() for *_, part in cells])
        print(f"{100 * mean:>4.0f}%  {rates.min():5.1f} ({name}, n {n}, {ABBREVIATIONS[worst[1]]})"
              f"  {rates.mean():5.1f}  {shown:5.1f}")  # fmt: skip


def read_answers(path: Path) -> np.ndarray:
    """True class, whether accepted, and likeliest class of every cell: (N, 3)."""
    return np.array(
        [(SCHEME.find(Path(row.path).parent.name), row.decision == "class",
          int(np.argmax(row.probabilities)))
         for row in read_predictions(path).rows
         if row.status == "ok" and row.decision != "not-a-cell"]
    )  # fmt: skip


def print_mixed(
    validation: dict[str, object],
    answers: tuple[Path, Path],
    repeats: int,
    draws: int,
    seed: int,
) -> None:
    """How often limits hold the truth where a part of 200 cells is of another laboratory."""
    table, effect = accepted_table(validation)
    home, other = map(read_answers, answers)
    rng = np.random.default_rng(seed)
    natural = [np.bincount(cells[:, 0], minlength=5) / len(cells) for cells in (home, other)]
    for part in (20, 40, 60, 80, 100):
        shares, held = natural[0] + part / 200 * (natural[1] - natural[0]), []
        for _ in range(repeats):
            cells = [home[rng.choice(len(home), 200 - part)], other[rng.choice(len(other), part)]]
            _, sure, answer = np.concatenate(cells).T
            if sure.mean() < LEAST_ACCEPTED:
                continue
            counts = [np.bincount(answer[sure == one], minlength=5) for one in (1, 0)]
            low, high = adjusted_draws(
                *counts, table, seed=rng, draws=draws, effect=effect
            ).limits()
            held.append((low <= shares) & (shares <= high))
        hold = _row(100 * np.mean(held, axis=0)) if held else "-"
        print(f"{part / 2:>4.0f}% mixed in: printed {len(held)} of {repeats}, hold {hold}")


def print_widths(
    validation: dict[str, object], answers: Path, repeats: int, draws: int, seed: int
) -> None:
    """Limits of 200 cells drawn from real answers, against exact binomial limits."""
    table, effect = accepted_table(validation)
    known = read_answers(answers)
    rng = np.random.default_rng(seed)
    ratios, held, shares = [], [], np.bincount(known[:, 0], minlength=5) / len(known)
    for _ in range(repeats):
        true, sure, answer = known[rng.choice(len(known), 200, replace=False)].T
        if sure.mean() < LEAST_ACCEPTED:
            continue
        counts = [np.bincount(answer[sure == one], minlength=5) for one in (1, 0)]
        low, high = adjusted_draws(*counts, table, seed=rng, draws=draws, effect=effect).limits()
        exact = [exact_interval(int(k), 200) for k in np.bincount(true, minlength=5)]
        ratios.append((high - low) / np.array([end - start for start, end in exact]))
        held.append((low <= shares) & (shares <= high))
    print(f"{len(known):,} cells, {100 * known[:, 1].mean():.1f}% accepted; limits are printed in "
          f"{100 * len(ratios) / repeats:.1f}% of {repeats} draws of 200")  # fmt: skip
    print(f"median width against exact: all {np.median(ratios):.2f}, by class "
          f"{' '.join(f'{value:.2f}' for value in np.median(ratios, axis=0))}")  # fmt: skip
    print(f"hold the share in all cells: {_row(100 * np.mean(held, axis=0))}")


def _row(values: np.ndarray) -> str:
    """Percentages with one decimal."""
    return " ".join(f"{value:6.1f}" for value in values)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--draws", type=int, default=99)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="default")
    parser.add_argument("--widths", type=Path)
    parser.add_argument("--mixed", type=Path)
    arguments = parser.parse_args()
    classifier = load(arguments.model)
    print(f"{classifier.name}, digest {classifier.digest[:12]}, {arguments.repeats} repeats, "
          f"{arguments.draws} draws, seed {arguments.seed}", flush=True)  # fmt: skip
    settings = arguments.repeats, arguments.draws, arguments.seed
    validation = dict(classifier.bundle.validation)
    if arguments.widths is None:
        print_coverage(coverage(validation, *settings))
    elif arguments.mixed is not None:
        print_mixed(validation, (arguments.widths, arguments.mixed), *settings)
    else:
        print_widths(validation, arguments.widths, *settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
