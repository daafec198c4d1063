"""How well the white cells of fields are found that training has not seen.

    python experiments/evaluate_detector.py DATA runs/fold-0/white-cells.onnx \\
        runs/fold-1/white-cells.onnx --drawn DRAWN

The first detector has not seen the first fold, and so on: each looks at its own, and all at the
drawn fields that are kept back. What they find is counted together. Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from detector_pictures import KEPT, Picture, chula, drawn_fields, fields

from leuko.cells.detector import Detection
from leuko.evaluation.detection import IGNORE, score_boxes
from leuko.field.boxes import LabelledBox
from leuko.runtime import detectors
from leuko.runtime.detectors import NetworkDetector


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("detectors", type=Path, nargs="+", help="ONNX files, by fold.")
    parser.add_argument("--drawn", type=Path, required=True, help="Folder of drawn fields.")
    parser.add_argument("--least", type=float, nargs="+", default=[0.1, 0.3, 0.4, 0.45, 0.5, 0.6])
    arguments = parser.parse_args()
    print("| fields | cells | least score | recall | precision | AP50 | AP50-95 | counting error |")
    print("|---|---|---|---|---|---|---|---|")
    folds, networks = len(arguments.detectors), [load(path) for path in arguments.detectors]
    for pictures in (
        chula(arguments.data, folds),
        fields(arguments.data, folds),
        [one for one in drawn_fields(arguments.drawn) if one.fold == KEPT],
    ):
        given, found = {}, {}
        for fold, network in enumerate(networks):
            for picture in pictures:
                if picture.fold in (fold, KEPT):
                    name = f"{fold}/{picture.path.name}"
                    given[name] = [*boxes_of(picture)]
                    found[name] = find(network, picture, min(arguments.least))
        for least in sorted(arguments.least):
            tell(pictures[0].source, given, found, least)


def load(path: Path) -> NetworkDetector:
    """A detector from its file."""
    return NetworkDetector(path.read_bytes(), path.stem)


def find(network: NetworkDetector, picture: Picture, least: float) -> list[Detection]:
    """Find cells at the scale that the detector measures, down to a score."""
    scale = network.measure(picture.pixels).pixels_per_micrometre
    usual, detectors.LEAST = detectors.LEAST, least
    try:
        return network.find(picture.pixels, pixels_per_micrometre=scale)
    finally:
        detectors.LEAST = usual


def boxes_of(picture: Picture) -> Iterator[LabelledBox]:
    """Its boxes as a run is scored with them."""
    for label, boxes in (("WBC", picture.white), (IGNORE, picture.ignored)):
        for box in boxes.round().astype(int).tolist():
            yield LabelledBox(str(picture.path), "", label, tuple(box))


def tell(source: str, given: dict, found: dict, least: float) -> None:
    """Print the figures of what has a score."""
    report = score_boxes(
        {name: [one for one in cells if one.score >= least] for name, cells in found.items()}, given
    )
    print(
        f"| {source}, {report.fields} | {report.found + report.missed} | {least:.2f} | "
        f"{report.recall:.3f} | {report.precision:.3f} | {report.ap50:.3f} | "
        f"{report.ap50_95:.3f} | {report.counting_error_per_field:.3f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
