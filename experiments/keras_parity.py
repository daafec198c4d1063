"""Compare a run's Keras model with the ONNX network that ships, on every image of a folder.

    python experiments/keras_parity.py runs/flagship-0 Dataset/Test

Both get the same inputs, every look at every picture. Promised: probabilities within 1e-4 of each
other, and the same class unless the two best differ by less than that.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import keras
import numpy as np

from leuko.bundle import ModelBundle
from leuko.cells.texture import views
from leuko.data.reading import read_labelled
from leuko.formats.graph import open_session
from leuko.imaging.decode import read_image
from leuko.runtime.network.session import run_outputs
from leuko.support.parallel import bounded_map, worker_count

LIMIT = 1e-4
_CHUNK = 64


def main() -> None:
    """Print the largest difference and the labels that differ; exit 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    model = keras.models.load_model(arguments.run / "model.keras", compile=False)
    bundle = ModelBundle.load(arguments.run / "bundle")
    session = open_session(bundle.onnx)
    files = read_labelled(arguments.folder).files()
    inputs = bounded_map(
        lambda file: views(read_image(file, spec=bundle.preprocess).pixels, bundle.preprocess),
        files,
        workers=worker_count(None),
    )
    worst, moved, seen = 0.0, 0, 0
    while chunk := list(islice(inputs, _CHUNK)):
        pixels = np.concatenate(chunk)
        mine = np.asarray(model(pixels.astype(np.float32), training=False), np.float64)
        theirs = run_outputs(session, pixels)[0]
        worst = max(worst, float(np.abs(mine - theirs).max()))
        best = np.sort(mine, axis=1)
        clear = best[:, -1] - best[:, -2] > LIMIT
        moved += int(((mine.argmax(axis=1) != theirs.argmax(axis=1)) & clear).sum())
        seen += len(pixels)
    print(f"{seen:,} inputs of {len(files):,} images: largest difference {worst:.2g}, "
          f"{moved} labels differ that are not in doubt")  # fmt: skip
    raise SystemExit(worst > LIMIT or moved > 0)


if __name__ == "__main__":
    main()
