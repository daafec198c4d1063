"""Fit calibration and decisions of a bundle on the validation rows of its own training, again.

    python experiments/add_trust.py src/leuko/zoo/default.zip Dataset default.zip

A run of ``leuko train`` does this by itself. This is for a bundle from before that: the validation
slides are found again from the recipe that the bundle names, and compared by digest, so that not
one training image takes part. The whole takes about three minutes on two cores for Raabin-WBC.

With it, the bundle's provenance loses the folder of its initial weights, if one was written there.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from leuko.bundle import ModelBundle
from leuko.data.audit.duplicates import difference_hash, near_duplicates, thumbnail
from leuko.data.reading import read_split
from leuko.data.split import split_by_slide
from leuko.imaging.decode import read_image
from leuko.manifest import Manifest
from leuko.runtime.cards import with_card
from leuko.runtime.trust.calibrate import TrustSettings, fit_trust
from leuko.support.artifacts import digest_file
from leuko.support.parallel import bounded_map, worker_count
from leuko.support.reporter import Reporter


def main() -> None:
    """Find the validation rows, fit, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset", type=Path, help="As it was given to leuko train.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, help="The file that training began from.")
    arguments = parser.parse_args()
    bundle = ModelBundle.load(arguments.bundle)
    recipe = bundle.provenance["recipe"]
    rows = validation_rows(arguments.dataset, recipe, bundle.provenance["manifest_digest"])
    fitted = fit_trust(
        bundle, rows, TrustSettings(seed=recipe["seed"]), reporter=Reporter(say=print)
    )
    provenance = without_folders(fitted.provenance, arguments.weights)
    fitted = with_card(replace(fitted, provenance=provenance))
    fitted.save(arguments.out)
    print(fitted.card)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB, digest {fitted.digest}")


def validation_rows(dataset: Path, recipe: dict[str, Any], wanted: str) -> Manifest:
    """The rows that training validated on, or an exit when they are not the same."""
    manifest = read_split(dataset, "train")

    def look(file: Path) -> Any:
        return thumbnail(read_image(file).pixels)

    small = np.stack([*bounded_map(look, manifest.files(), workers=worker_count(None), ahead=64)])
    hashes = np.array([difference_hash(one) for one in small], dtype=np.uint64)
    trains, validates = split_by_slide(
        manifest,
        fraction=recipe["data"]["validation"],
        seed=recipe["seed"],
        same_cell=[(a, b) for a, b, _, _ in near_duplicates(small, hashes)],
    )
    train, held = (
        manifest.subset(trains, split="train"),
        manifest.subset(validates, split="validation"),
    )
    if Manifest(train.root, (*train.samples, *held.samples)).digest != wanted:
        raise SystemExit("These are not the rows that the bundle was trained on.")
    return held


def without_folders(provenance: dict[str, Any], weights: Path | None) -> dict[str, Any]:
    """Name the file of the initial weights, not its place."""
    recipe = provenance["recipe"]
    name = str(recipe["model"]["weights"]).replace("\\", "/").rpartition("/")[2]
    changed = {**provenance, "recipe": {**recipe, "model": {**recipe["model"], "weights": name}}}
    if weights is not None:
        changed["weights_sha256"] = digest_file(weights)
    return changed


if __name__ == "__main__":
    main()
