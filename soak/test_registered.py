"""Whole runs of every registered network, stopped half way: trained, shipped, explained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import pytest

from leuko.architectures import ARCHITECTURES
from leuko.data.reading import read_split
from leuko.data.synth import SmearPlan, draw_dataset
from leuko.imaging.decode import read_image
from leuko.imaging.preprocess import PreprocessSpec
from leuko.recipe import DataSettings, ModelSettings, Recipe, TrainSettings
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.explain import explain
from leuko.support.reporter import Reporter
from leuko.training.options import RunOptions
from leuko.training.run import train

WAYS = {
    "head": (DataSettings(validation=0.25, balance="fixed", per_class=5), 0),
    "all": (DataSettings(validation=0.25, balance="sampled"), 2),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("soak") / "Dataset"
    mix = dict.fromkeys(("Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil"), 1.0)
    draw_dataset(folder, SmearPlan(train=60, test=15, size=96, slides=(8, 3), imbalance=mix))
    return folder


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for name, e in ARCHITECTURES.items() if e.has_backbone])
def test_a_run_from_pictures_to_an_explained_answer(
    name: str, way: str, drawn: Path, tmp_path: Path
) -> None:
    data, steps = WAYS[way]
    recipe = Recipe(
        name=name,
        title=name,
        preprocess=PreprocessSpec((64, 64)),
        data=data,
        model=ModelSettings(name, train=way, hidden=0, norm_momentum=0.5),
        train=TrainSettings(epochs=2, steps=steps, batch=4, rate=1e-4),
    )

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "training" and done > total // 2:
            raise KeyboardInterrupt

    options = RunOptions(cache=tmp_path / "cache", workers=2)
    with pytest.raises(KeyboardInterrupt):
        train(drawn, recipe, tmp_path / "run", options=options, reporter=Reporter(stop))
    run = train(drawn, recipe, tmp_path / "run", options=replace(options, resume=True))
    assert len(run.history) == 2
    loaded = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert loaded.count_params() == run.bundle.parameters
    held = read_split(drawn, "test")
    classifier = OnnxClassifier(run.bundle)
    assert classifier.predict(held.files()).probabilities.shape == (15, 5)
    shown = explain(classifier, read_image(held.files()[0]).pixels)
    assert shown.method == "class-activation map"
    assert shown.values.mean() + shown.bias == pytest.approx(shown.evidence, abs=1e-3)
