"""Write the fingerprints of what Leuko's backbone and bundled models have learned from.

    python experiments/fingerprints.py Dataset src/leuko/zoo/raabin-train.npy

`Dataset` is Raabin-WBC as `leuko train` took it. The file holds 64 bits for each training image,
sorted. With ``--measure`` nothing is written: copies of training images, resized and compressed
again, are looked for, and so are the test images, few of which should be found.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from leuko.data.audit.duplicates import difference_hash, thumbnail
from leuko.data.dataset import Pictures
from leuko.data.reading import read_split
from leuko.data.seen import SAME, seen_in, were_seen
from leuko.imaging.decode import encode_jpeg, read_image
from leuko.support.artifacts import atomic_write
from leuko.support.parallel import bounded_map, worker_count

_COPIES = ((288, 70), (224, 85), (160, 80), (575, 90), (100, 60))
"""Side in pixels, and JPEG quality."""


def main() -> None:
    """Write, or measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--copies", type=int, default=1000, help="Training images to be copied.")
    arguments = parser.parse_args()
    files, workers = read_split(arguments.dataset, "train").files(), worker_count(None)
    if arguments.measure:
        chosen = np.random.default_rng(0).permutation(len(files))[: arguments.copies]
        copies = bounded_map(_copied, [files[row] for row in chosen], workers=workers)
        found = were_seen(np.array([*copies]).ravel()).reshape(len(chosen), len(_COPIES))
        for (side, quality), share in zip(_COPIES, found.mean(axis=0), strict=True):
            print(f"copies of {side} px, quality {quality}: {share:.4f} found at {SAME} bits")
        test = read_split(arguments.dataset, "test")
        print(f"test images found: {seen_in(test, Pictures(workers))} of {len(test)}")
    elif arguments.out is not None:
        hashes = bounded_map(
            lambda file: difference_hash(thumbnail(read_image(file).pixels)), files, workers=workers
        )
        with atomic_write(arguments.out) as file:
            np.save(file, np.sort(np.array([*hashes], dtype=np.uint64)))


def _copied(file: Path) -> list[np.uint64]:
    """Fingerprints of a picture's copies."""
    pixels, hashes = read_image(file).pixels, []
    for side, quality in _COPIES:
        smooth = cv2.INTER_AREA if side < len(pixels) else cv2.INTER_CUBIC
        small = cv2.resize(pixels, (side, side), interpolation=smooth)
        again = cv2.imdecode(
            np.frombuffer(encode_jpeg(small, quality=quality), np.uint8), cv2.IMREAD_COLOR
        )
        hashes.append(difference_hash(thumbnail(np.ascontiguousarray(again[..., ::-1]))))
    return hashes


if __name__ == "__main__":
    main()
