"""Let a trained network look at cells in more styles, and measure and fit all that depends on it.

    python experiments/add_views.py src/leuko/zoo/default.zip Dataset flagship default.zip \\
        --weights mobilenet_v2_no_top.weights.h5

Weights of the network do not change. Its preprocessing becomes the recipe's; validation figures,
trust, goldens and card are made anew on the validation rows of its own training, which are found
again and compared by digest. This made the `default` of docs/decisions/0018 out of the one of 0016;
a run of ``leuko train`` with the recipe does all of it by itself.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from add_trust import validation_rows, without_folders

from leuko.bundle import ModelBundle
from leuko.recipe import load_recipe
from leuko.runtime.cards import with_card
from leuko.runtime.classifier import OnnxClassifier, make_goldens
from leuko.runtime.trust.calibrate import TrustSettings, fit_trust, without_trust
from leuko.support.artifacts import digest_json
from leuko.support.reporter import Reporter
from leuko.training.provenance import validation_summary
from leuko.workflows.evaluate import evaluate


def main() -> None:
    """Change the looks, measure, fit, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset", type=Path, help="As it was given to leuko train.")
    parser.add_argument("recipe", help="Whose styles and weights are taken.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, help="The file that training began from.")
    arguments = parser.parse_args()
    before = ModelBundle.load(arguments.bundle)
    recipe = load_recipe(arguments.recipe).with_seed(int(before.provenance["seed"]))
    rows = validation_rows(
        arguments.dataset, before.provenance["recipe"], before.provenance["manifest_digest"]
    )
    spec = replace(
        before.preprocess, styles=recipe.preprocess.styles, weights=recipe.preprocess.weights
    )
    if spec != recipe.preprocess:
        raise SystemExit(f"{before.name} and {recipe.name} differ in more than their looks.")
    plain = without_trust(before)
    plain = replace(
        plain, preprocess=spec, goldens=make_goldens(before.onnx, spec, before.measured)
    )
    fitted = fit_trust(plain, rows, TrustSettings(seed=recipe.seed), reporter=Reporter(say=print))
    document = evaluate(OnnxClassifier(fitted), rows).to_dict()
    provenance = without_folders(before.provenance, arguments.weights)
    provenance["recipe"] = {**provenance["recipe"], "preprocess": spec.to_dict()}
    provenance["recipe_digest"] = digest_json(provenance["recipe"])
    provenance["looks_added_to"] = before.digest
    summary = validation_summary(fitted, document, split=before.validation["split"])
    fitted = with_card(replace(fitted, provenance=provenance, validation=summary))
    fitted.save(arguments.out)
    print(fitted.card)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB, digest {fitted.digest}")


if __name__ == "__main__":
    main()
