"""Measure how often the limits of a differential count hold the true composition.

For every composition and size of count: the validation table and the count are both drawn through
a known confusion matrix, the count is corrected with the drawn table, and it is noted whether the
95% limits of each class hold its true share. The raw column beside it does the same without
correction, which shows what the classifier's own error does to ordinary limits.

    python experiments/count_coverage.py [--repeats 10000] [--draws 399] [--seed 0] [--model M]

The known matrix is that of the bundled model's validation, each row smoothed by a third of a cell
a class, so that no confusion is impossible. 10,000 repeats take about half an hour on one core of
2020; the standard error of a coverage is then 0.2 points. Nothing is read but the model.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from leuko.evaluation.differential_adjust import adjusted_draws, validation_confusion
from leuko.evaluation.differential_limits import exact_interval
from leuko.runtime.classifier import load
from leuko.taxonomy import ABBREVIATIONS

COMPOSITIONS = {
    "adult": (0.005, 0.03, 0.30, 0.07, 0.595),
    "eosinophilia": (0.02, 0.20, 0.20, 0.08, 0.50),
    "lymphocytosis": (0.001, 0.01, 0.80, 0.05, 0.139),
    "even": (0.2, 0.2, 0.2, 0.2, 0.2),
}
SIZES = (100, 200, 400, 1000, 5000)
AT_ONCE = 250


def coverage(
    confusion: np.ndarray, shares: np.ndarray, n: int, *, repeats: int, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of repeats whose corrected, and whose raw, limits hold the truth: (5,) and (5,)."""
    rng = np.random.default_rng([seed, n])
    cells = np.round(confusion.sum(axis=1)).astype(int)
    rows = confusion / confusion.sum(axis=1, keepdims=True)
    ends = np.array([exact_interval(k, n) for k in range(n + 1)])
    corrected, raw = np.zeros(5), np.zeros(5)
    done = 0
    while done < repeats:
        some = min(AT_ONCE, repeats - done)
        table = rng.multinomial(np.tile(cells, (some, 1)), rows)
        counts = rng.multinomial(n, shares @ rows, size=some)
        low, high = adjusted_draws(counts, table, seed=rng, draws=draws).limits()
        corrected += ((low <= shares) & (shares <= high)).sum(axis=0)
        raw += ((ends[counts, 0] <= shares) & (shares <= ends[counts, 1])).sum(axis=0)
        done += some
    return corrected / repeats, raw / repeats


def main() -> int:
    """Print one line for each composition and size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=399)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="default")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    classifier = load(arguments.model)
    confusion, reason = validation_confusion(classifier.bundle.validation)
    if confusion is None:
        print(f"Error: {reason}", file=sys.stderr)
        return 1
    print(f"{classifier.name}, digest {classifier.digest[:12]}, {arguments.repeats} repeats, "
          f"{arguments.draws} draws, seed {arguments.seed}")  # fmt: skip
    print(f"{'':<15}{'n':>6}  corrected: {' '.join(f'{a:>6}' for a in ABBREVIATIONS)}  raw: "
          f"{' '.join(f'{a:>6}' for a in ABBREVIATIONS)}")  # fmt: skip
    for name, shares in COMPOSITIONS.items():
        for n in arguments.sizes:
            found = coverage(
                confusion + 1 / 3, np.array(shares), n,
                repeats=arguments.repeats, draws=arguments.draws, seed=arguments.seed,
            )  # fmt: skip
            ours, raw = (" ".join(f"{100 * value:6.1f}" for value in one) for one in found)
            print(f"{name:<15}{n:>6}             {ours}       {raw}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
