"""Time Leuko's whole experiment against the published code, rebuilt from its description.

The rival, as the published notebook does it: one process augments images with Keras's
`ImageDataGenerator` and saves them; `image_dataset_from_directory` reads them back at every epoch,
unshuffled cache and all; the CNN at 350 px trains for 14 epochs and the frozen MobileNetV2 at
224 px for 10, its backbone run again for every image of every epoch. Two hours are not waited
for: 300 balanced images and one shortened epoch of each model are timed, before and after ours,
and multiplied out to 20,980 drawn images, 779 training and 195 validation batches an epoch.

Ours is timed whole, as a command: `leuko compare DATASET --recipes cnn mobilenetv2 --seeds 1`.
With `--published` it is `published-cnn published-mobilenetv2`, faults and early stopping
included; ours may then stop later or sooner than the published runs did, so a second ratio is for
as many epochs as theirs.

    python benchmarks/bench_experiment.py [DATASET] [--weights PATH] [--published] [--out DIR]

Without DATASET it takes ``raabin-wbc-288`` in the folder that ``LEUKO_DATA`` names, and says so and
stops when there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from leuko.data.reading import read_split
from leuko.recipe import load_recipe
from leuko.support.host import machine

DRAWN, TRAIN_BATCHES, VALIDATION_BATCHES = 20_980, 779, 195
CNN_EPOCHS, MOBILENET_EPOCHS = 14, 10
SAMPLE, TIMED_TRAIN, TIMED_VALIDATION = 300, 8, 2


def rival(dataset: Path, weights: str) -> dict[str, float]:
    """Seconds of the published experiment, multiplied out from its parts."""
    with tempfile.TemporaryDirectory(prefix="leuko-bench-") as name:
        folder = Path(name)
        balance = _rival_balance(dataset, folder / "balanced") * DRAWN
        cnn = _rival_epoch(folder / "balanced", 350, _rival_cnn()) * CNN_EPOCHS
        mobilenet = _rival_epoch(folder / "balanced", 224, _rival_mobilenet(weights))
        mobilenet *= MOBILENET_EPOCHS
    return {
        "balance": balance,
        "cnn": cnn,
        "mobilenetv2": mobilenet,
        "total": balance + cnn + mobilenet,
    }


def _rival_balance(dataset: Path, out: Path) -> float:
    """Seconds for one augmented image, written to disk; leaves a folder to train on."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator
    from keras.utils import img_to_array, load_img

    generator = ImageDataGenerator(
        rotation_range=15, zoom_range=0.1, horizontal_flip=True, fill_mode="nearest"
    )
    manifest = read_split(dataset, "train")
    by_class: dict[int, list[Path]] = {}
    for sample, file in zip(manifest.samples, manifest.files(), strict=True):
        by_class.setdefault(sample.label, []).append(file)
    files = [members[n] for n in range(SAMPLE // len(by_class)) for members in by_class.values()]
    started = time.perf_counter()
    for number, file in enumerate(files):
        place = out / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        pixels = img_to_array(load_img(file))[None]
        flow = generator.flow(
            pixels, batch_size=1, save_to_dir=place, save_prefix=f"aug_{number}", save_format="jpg"
        )
        next(flow)
    return (time.perf_counter() - started) / len(files)


def _rival_epoch(folder: Path, size: int, model: Any) -> float:
    """Seconds of one epoch, from a few of its batches."""
    import keras

    def pixels(split: str) -> Any:
        data = keras.utils.image_dataset_from_directory(
            folder, validation_split=0.2, subset=split, seed=123, image_size=(size, size),
            batch_size=32, label_mode="categorical", verbose=False,
        )  # fmt: skip
        return data.map(lambda x, y: (x / 255.0, y)).repeat()

    model.compile(keras.optimizers.AdamW(1e-3), "categorical_crossentropy", metrics=["accuracy"])
    train, held = pixels("training"), pixels("validation")
    # The first call builds the graphs; the published run pays for that once, so it is left out.
    model.fit(train.take(2), validation_data=held.take(1), verbose=0)
    started = time.perf_counter()
    model.fit(train, steps_per_epoch=TIMED_TRAIN, verbose=0)
    train_seconds = (time.perf_counter() - started) / TIMED_TRAIN
    started = time.perf_counter()
    model.evaluate(held, steps=TIMED_VALIDATION, verbose=0)
    held_seconds = (time.perf_counter() - started) / TIMED_VALIDATION
    return train_seconds * TRAIN_BATCHES + held_seconds * VALIDATION_BATCHES


def _rival_cnn() -> Any:
    """The published CNN, in Keras's own words."""
    import keras

    layers: list[Any] = [keras.Input((350, 350, 3)), keras.layers.Rescaling(1 / 255)]
    for filters in (4, 8, 16, 32, 64):
        layers.append(keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu"))
        layers.append(keras.layers.BatchNormalization())
    layers += [
        keras.layers.Flatten(),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(5, activation="softmax"),
    ]
    return keras.Sequential(layers)


def _rival_mobilenet(weights: str) -> Any:
    """The published frozen MobileNetV2."""
    import keras

    own = weights == "imagenet"
    backbone = keras.applications.MobileNetV2(
        include_top=False, weights="imagenet" if own else None, input_shape=(224, 224, 3)
    )
    if not own and weights != "none":
        backbone.load_weights(weights)
    backbone.trainable = False
    return keras.Sequential(
        [
            keras.Input((224, 224, 3)),
            backbone,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )


def ours(dataset: Path, weights: str, out: Path, recipes: list[str]) -> float:
    """Seconds of the whole command, from a cold cache of features."""
    command = [sys.executable, "-m", "leuko", "compare", str(dataset), "--recipes", *recipes]
    command += ["--seeds", "1", "--out", str(out), "--weights", weights]
    with tempfile.TemporaryDirectory(prefix="leuko-bench-") as cache:
        started = time.perf_counter()
        subprocess.run([*command, "--cache", cache], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started


def more_seconds(out: Path) -> float:
    """What the published recipes' runs would have taken longer, with as many epochs as theirs."""
    epochs = {"published-cnn": CNN_EPOCHS, "published-mobilenetv2": MOBILENET_EPOCHS}
    more = 0.0
    for environment in out.rglob("environment.json"):
        run = environment.parent
        name = load_recipe(run / "recipe.toml").name
        if name in epochs:
            trained = len((run / "history.csv").read_text().splitlines()) - 1
            fit = json.loads(environment.read_text())["seconds"]["fit"]
            more += fit * (epochs[name] / trained - 1)
    return more


def main() -> None:
    """Run both in turn and print one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dataset", type=Path, nargs="?")
    parser.add_argument("--weights", default=os.environ.get("LEUKO_WEIGHTS", "imagenet"))
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.dataset is None:
        arguments.dataset = Path(os.environ.get("LEUKO_DATA", "")) / "raabin-wbc-288"
        if "LEUKO_DATA" not in os.environ or not arguments.dataset.is_dir():
            print("Skipped: name a data set, or let LEUKO_DATA point to raabin-wbc-288's folder.")
            return
    recipes = ["cnn", "mobilenetv2"]
    if arguments.published:
        recipes = [f"published-{name}" for name in recipes]
    with tempfile.TemporaryDirectory(prefix="leuko-bench-") as name:
        out = arguments.out or Path(name) / "out"
        rivals = [rival(arguments.dataset, arguments.weights)]
        seconds = ours(arguments.dataset, arguments.weights, out, recipes)
        equal = seconds + more_seconds(out)
        rivals.append(rival(arguments.dataset, arguments.weights))
    parts = {part: round(statistics.median(r[part] for r in rivals)) for part in rivals[0]}
    document = {
        "rival_seconds": parts,
        "rival_runs": [{k: round(v) for k, v in r.items()} for r in rivals],
        "ours_seconds": round(seconds),
        "recipes": recipes,
        "ratio": round(parts["total"] / seconds, 1),
        **(
            {
                "ours_seconds_equal_epochs": round(equal),
                "ratio_equal_epochs": round(parts["total"] / equal, 1),
            }
            if arguments.published
            else {}
        ),
        "machine": machine(),
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
