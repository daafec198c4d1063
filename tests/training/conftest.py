"""A drawn data set, two small recipes and one finished run of each, made once a session."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from five import CLASSES
from leuko.data.synth import SmearPlan, draw_dataset
from leuko.imaging.preprocess import PreprocessSpec
from leuko.recipe import AugmentSettings, DataSettings, ModelSettings, Recipe, TrainSettings


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty training cells on eight slides and thirty test cells on three, 96 pixels wide."""
    folder = tmp_path_factory.mktemp("drawn") / "Dataset"
    draw_dataset(
        folder,
        SmearPlan(
            train=60,
            test=30,
            size=96,
            slides=(8, 3),
            imbalance=dict(zip(CLASSES, (1, 1, 2, 1, 3), strict=True)),
        ),
    )
    return folder


@pytest.fixture(scope="session")
def tiny() -> Recipe:
    """The CNN on 64 x 64 pixels, with everything that has a state: dropout and both waits."""
    return Recipe(
        name="tiny",
        title="A tiny CNN",
        seed=7,  # whose validation loss rises once and falls twice, by 0.5 or more on any processor
        preprocess=PreprocessSpec((64, 64), crop=0.8),
        data=DataSettings(validation=0.25, balance="sampled", evenness=0.5),
        augment=AugmentSettings("microscope"),
        model=ModelSettings("cnn", dropout=0.1, norm_momentum=0.5),
        train=TrainSettings(
            epochs=4, steps=4, batch=8, rate=1e-2, monitor="val_loss", patience=2, plateau=1
        ),
    )


@pytest.fixture(scope="session")
def tiny_head(tiny: Recipe) -> Recipe:
    """A frozen backbone of random weights on 64 x 64 pixels."""
    return Recipe(
        name="tiny-head",
        title="A tiny head",
        seed=5,
        preprocess=tiny.preprocess,
        data=DataSettings(validation=0.25, balance="fixed", per_class=10),
        augment=tiny.augment,
        model=ModelSettings("mobilenetv2", "minus-one-one", "head", "none", hidden=4),
        train=TrainSettings(epochs=2, batch=16, rate=1e-2),
    )


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], dict[str, str]]:
    """Digest of every file below a folder but environment.json, by name."""

    def of(folder: Path) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "environment.json"
        }

    return of
