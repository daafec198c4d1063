"""Make what ships from a finished run: a bundle of the zoo and, if asked, its backbone.

    leuko train Dataset --recipe flagship --out runs/flagship
    leuko evaluate runs/flagship Dataset/Test --out runs/flagship-test
    leuko evaluate runs/flagship OtherLaboratory --out runs/flagship-other
    python experiments/ship.py runs/flagship runs/flagship-test/evaluation.json \\
        runs/flagship-other/evaluation.json --name default

Writes ``src/leuko/zoo/NAME.zip``: the run's bundle, with what was measured afterwards in its card.
With ``--backbone`` also ``src/leuko/zoo/mobilenetv2-leuko.npz`` and its card: the backbone in
float16, for ``--weights leuko`` (made from a run of `mobilenetv2-finetuned`). Nothing is trained or
chosen here.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from leuko.bundle import ModelBundle
from leuko.runtime.cards import with_card
from leuko.support.artifacts import RESEARCH_USE, atomic_write_text, digest_file, read_json

ZOO = Path(__file__).resolve().parent.parent / "src" / "leuko" / "zoo"


def main() -> None:
    """Write both files and their cards."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="A run folder; or a bundle, with --made-with.")
    parser.add_argument("--made-with", type=Path, help="Bundle whose card says how it was made.")
    parser.add_argument("evaluation", type=Path, nargs="+", help="Test-A first, then others.")
    parser.add_argument("--name", default="default", help="Name in the zoo.")
    parser.add_argument("--backbone", action="store_true", help="Ship the backbone too.")
    arguments = parser.parse_args()
    if arguments.made_with is None:
        bundle, made = ModelBundle.load(arguments.run / "bundle"), None
    else:
        bundle = ModelBundle.load(arguments.run)
        made = ModelBundle.load(arguments.made_with).card.partition("## Made with\n\n")[2].rstrip()
    shipped = ship(bundle, arguments.run, arguments.evaluation, arguments.name, made=made)
    if arguments.backbone:
        _ship_backbone(arguments.run, shipped)
    for path in sorted(ZOO.glob("*.*")):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


def ship(
    bundle: ModelBundle,
    run: Path,
    evaluations: list[Path],
    name: str,
    *,
    made: str | None = None,
    command: str | None = None,
) -> ModelBundle:
    """Write a bundle into the zoo, with what was measured of it in its card.

    Parameters
    ----------
    bundle : ModelBundle
        The run's own, or a variant of it.
    run : Path
        The run folder, for how it was made.
    evaluations : list of Path
        Of `leuko evaluate`: Test-A first, then others.
    name : str
        Its name in the zoo.
    made : str, optional
        What its card says of how it was made; told from the run folder when None.
    command : str, optional
        What made it, where that was more than ``leuko train``.

    Returns
    -------
    ModelBundle
        As written.
    """
    lines = ["## Measured afterwards", ""]
    lines += ["| set | n | slides | accuracy (95% interval) | balanced accuracy | macro-F1 |"]
    lines += ["|---|---|---|---|---|---|"]
    lines += [_row(path) for path in evaluations]
    lines += ["", "On Test-A, by class:", "", "| class | n | slides | sensitivity | specificity |"]
    lines += ["|---|---|---|---|---|", *_classes(evaluations[0])]
    lines += [
        "",
        "Test-A shares 26 of its 28 slides with Train, so it says how well known slides are read. "
        "CellaVision and JTSC are development laboratories: training has not seen them, choices "
        "of method have.",
        "",
        "## Made with",
        "",
        made or _made(bundle, run, command),
    ]
    provenance = {**bundle.provenance, "card": "\n".join(lines)}
    shipped = with_card(replace(bundle, name=name, provenance=provenance))
    shipped.save(ZOO / f"{name}.zip")
    return shipped


def _made(bundle: ModelBundle, run: Path, command: str | None = None) -> str:
    """How a run was made, in a few lines."""
    environment = json.loads((run / "environment.json").read_text())
    machine = environment["machine"]
    recipe = bundle.provenance["recipe"]
    weights = recipe["model"]["weights"]
    known = {
        "none": "drawn from the seed",
        "leuko": "Leuko's own backbone, which began as MobileNetV2, ImageNet (Apache-2.0)",
    }
    start = known.get(weights, "MobileNetV2, ImageNet (Apache-2.0)")
    trained = f"leuko train Dataset --recipe {recipe['name']} --seed {bundle.provenance['seed']}"
    return "\n".join(
        [
            "- Data: Raabin-WBC Train, shrunk to 288 pixels (Kouzehkanan et al., Scientific "
            "Reports 12:1123, 2022), free for research and commercial use.",
            f"- Initial weights: {start}.",
            f"- Command: `{command or trained}`",
            f"- {environment['total_seconds'] / 60:.0f} minutes on {machine['processor']}, "
            f"{machine['cores']} cores, while the machine did other work.",
            "- Licence of the weights: Apache-2.0.",
        ]
    )


def _ship_backbone(run: Path, shipped: ModelBundle) -> None:
    """Write the run's backbone and its card."""
    import keras

    from leuko.training.architectures import save_backbone

    model = keras.models.load_model(run / "model.keras", compile=False)
    save_backbone(model, ZOO / "mobilenetv2-leuko.npz")
    text = [
        "# MobileNetV2 backbone, fine-tuned on Raabin-WBC",
        "",
        f"**{RESEARCH_USE}**",
        "",
        "The convolutional part of a model that Leuko trained, float16, for `--weights leuko`: "
        "a start for training on blood cells where ImageNet's weights cannot be fetched.",
        "",
        f"- From the bundle with digest `{shipped.digest[:16]}`, recipe "
        f"`{shipped.provenance['recipe']['name']}`.",
        f"- SHA-256 of the file: `{digest_file(ZOO / 'mobilenetv2-leuko.npz')}`",
        "- Made by `experiments/ship.py --backbone`. Licence: Apache-2.0.",
        "",
    ]
    atomic_write_text(ZOO / "mobilenetv2-leuko.md", "\n".join(text))


def _row(path: Path) -> str:
    """One evaluated set."""
    document = read_json(path, "evaluation")
    metrics = document["metrics"]
    accuracy = metrics["accuracy"]
    return (
        f"| {document['data']['folder']} | {document['n']:,} | {document['n_slides']} | "
        f"{accuracy['value']:.4f} ({accuracy['low']:.4f} to {accuracy['high']:.4f}) | "
        f"{metrics['balanced_accuracy']['value']:.4f} | {metrics['macro_f1']['value']:.4f} |"
    )


def _classes(path: Path) -> list[str]:
    """Figures of each class, with intervals."""
    lines = []
    for name, figures in read_json(path, "evaluation")["per_class"].items():
        cells = [name, f"{figures['n']:,}", str(figures["slides"])]
        for key in ("sensitivity", "specificity"):
            value, span = figures[key], figures[f"{key}_interval"]
            low, high = (span or {}).get("low"), (span or {}).get("high")
            told = "too few slides" if low is None else f"{low:.3f} to {high:.3f}"
            cells.append("-" if value is None else f"{value:.3f} ({told})")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
