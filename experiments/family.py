"""Train what ships: `default`, `small` taught by it, and `cnn`, each from its recipe.

    python experiments/family.py Dataset runs --weights mobilenet_v2_no_top.weights.h5 \\
        --laboratory CellaVision --laboratory JTSC [--only default] [--seeds 3] [--ship]

For each member it trains every seed (a run that was stopped goes on), evaluates it on
``Dataset/Test`` and on each development laboratory, and prints one line. With ``--ship`` the seed
whose validation accuracy is the median goes into the zoo, `small` with weights of 16 bits. Nothing
is chosen on Test-A or on a laboratory. ``--weights`` is where `default` starts: ImageNet's weights
are fetched without it. `small` is taught by the `default` that is in the zoo at that moment.

What it reached, and in how long, stands at the head of each recipe.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ship import ZOO, ship

from leuko.bundle import ModelBundle
from leuko.formats.export import ExportRequest, export_model
from leuko.manifest import Manifest
from leuko.recipe import load_recipe
from leuko.runtime.cards import with_card
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.trust.calibrate import TrustSettings, fit_trust
from leuko.support.artifacts import read_json
from leuko.support.reporter import Reporter
from leuko.training.options import RunOptions
from leuko.training.provenance import validation_summary
from leuko.training.run import train
from leuko.workflows.evaluate import evaluate

MEMBERS = {"default": "flagship", "small": "small", "cnn": "cnn"}
"""Names in the zoo and the recipes that make them."""

SMALL = TrustSettings(axes=24, searched=0.05)
"""How the trust of `small` is fitted: it is to stay below 1 MB with everything, and to be fast."""


@dataclass(frozen=True)
class Trained:
    """One seed of one member."""

    seed: int
    run: Path
    bundle: ModelBundle
    validation: float
    evaluations: list[Path]


def main() -> None:
    """Train, evaluate, print, ship."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--only", choices=MEMBERS, action="append")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--weights", help="Initial weights of default.")
    parser.add_argument("--laboratory", type=Path, action="append", default=[])
    parser.add_argument("--ship", action="store_true", help="Write the median seed to the zoo.")
    arguments = parser.parse_args()
    for name in arguments.only or MEMBERS:
        trained = [one_seed(name, seed, arguments) for seed in range(arguments.seeds)]
        if arguments.ship:
            by_validation = sorted(trained, key=lambda one: one.validation)
            median = by_validation[(len(trained) - 1) // 2]
            command = (
                f"python experiments/family.py Dataset runs --only {name} --seeds {len(trained)}"
            )
            ship(median.bundle, median.run, median.evaluations, name, command=command)
            size = (ZOO / f"{name}.zip").stat().st_size / 1e6
            print(f"{name}: seed {median.seed} ships, {size:.2f} MB")


def one_seed(name: str, seed: int, arguments: argparse.Namespace) -> Trained:
    """Train one seed, or go on with it, and evaluate it."""
    recipe = load_recipe(MEMBERS[name]).with_seed(seed)
    run = arguments.runs / f"{recipe.name}-{seed}"
    reporter = Reporter(say=lambda line: print(line, file=sys.stderr))
    options = RunOptions(
        weights=arguments.weights if name == "default" else None,
        resume=run.exists(),
        command=" ".join(sys.argv),
    )
    made = train(arguments.dataset, recipe, run, options=options, reporter=reporter)
    shipped = OnnxClassifier(what_ships(name, run))
    evaluations, cells = [], [f"validation {value(made.validation, 'accuracy')}"]
    for folder in (arguments.dataset / "Test", *arguments.laboratory):
        out = arguments.runs / f"{recipe.name}-{seed}-{folder.name}"
        evaluate(shipped, folder, command=" ".join(sys.argv), reporter=reporter).write(out)
        document = read_json(out / "evaluation.json", "evaluation")
        figures = [value(document, kind) for kind in ("accuracy", "balanced_accuracy", "macro_f1")]
        cells.append(f"{folder.name} {', '.join(figures)}")
        evaluations.append(out / "evaluation.json")
    print(f"{name}, seed {seed}: {'; '.join(cells)}", flush=True)
    return Trained(
        seed, run, shipped.bundle, made.validation["metrics"]["accuracy"]["value"], evaluations
    )


def value(document: dict[str, Any], name: str) -> str:
    """One figure of an evaluation, with its interval where there is one."""
    metric = document["metrics"][name]
    if metric["low"] is None:
        return f"{metric['value']:.4f}"
    return f"{metric['value']:.4f} [{metric['low']:.4f}, {metric['high']:.4f}]"


def what_ships(name: str, run: Path) -> ModelBundle:
    """The run's bundle; `small` is written with weights of 16 bits and measured as that."""
    if name != "small":
        return ModelBundle.load(run / "bundle")
    whole = ModelBundle.load(run / "bundle")
    target = run.parent / f"{run.name}-float16.zip"
    export_model(run, target, ExportRequest(weights="float16"))
    rows = Manifest.load(run / "manifest.json")
    held = [row for row, sample in enumerate(rows.samples) if sample.split == "validation"]
    validation = rows.subset(held)
    seed = int(whole.provenance["seed"])
    half = fit_trust(ModelBundle.load(target), validation, replace(SMALL, seed=seed))
    document = evaluate(OnnxClassifier(half), validation).to_dict()
    summary = validation_summary(half, document, split=whole.validation["split"])
    return with_card(replace(half, validation=summary))


if __name__ == "__main__":
    main()
