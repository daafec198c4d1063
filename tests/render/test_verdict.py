"""What is said of a comparison, from its numbers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from answered import LABELS, SLIDES, answers
from leuko.errors import DataError
from leuko.evaluation.comparison import ComparisonReport, Model, Run, recipe_titles, set_means
from leuko.evaluation.paired import Answers, Difference, PairedTest, compare_predictions
from leuko.evaluation.report import SetResult, evaluate_predictions
from leuko.render.evaluation import evaluation_document
from leuko.render.verdict import comparison_document, comparison_warnings, verdict


def a_report(models: Sequence[Model], paired: Sequence[PairedTest] = ()) -> ComparisonReport:
    """A comparison of these models, of which nothing else is known."""
    return ComparisonReport(
        dataset="Dataset",
        data_digest={"train": "ab" * 32},
        models=tuple(models),
        paired=tuple(paired),
        notes=(),
        audit={},
        command="leuko compare",
        version="0",
        machine={"cores": 2},
        versions={"numpy": "2"},
        total_seconds=1.5,
    )


def a_model(recipe: str, runs: Sequence[Run], title: str = "") -> Model:
    """One recipe's entry."""
    return Model(
        recipe=recipe,
        title=title or recipe,
        transfer=recipe != "cnn",
        split="slide",
        size=(32, 48),
        runs=tuple(runs),
        mean=set_means(runs),
        published={},
        history=({"epoch": 1.0, "loss": 0.5},),
        start={},
    )


def a_run(seed: int, evaluations: Mapping[str, SetResult], seconds: float = 100.0) -> Run:
    """One training's entry."""
    return Run(
        seed=seed,
        run=f"runs/some-{seed}",
        seconds={"total": seconds},
        epochs=1,
        predict_images_per_second=80.0,
        bundle_bytes=1000,
        parameters=100,
        images={"training": 10, "validation": 5},
        evaluations=evaluations,
    )


def experiment(
    shares: Mapping[str, float],
    seeds: int = 3,
    unseen: Mapping[str, float] | None = None,
    titles: Mapping[str, str] | None = None,
    seconds: Mapping[str, float] | None = None,
) -> ComparisonReport:
    """A comparison whose models are right at given rates."""
    sets = {"test": shares} | ({"jtsc": unseen} if unseen else {})
    tables = {
        (recipe, name, seed): answers(rates[recipe], 100 * seed + 10 * i + len(name))
        for name, rates in sets.items()
        for i, recipe in enumerate(shares)
        for seed in range(seeds)
    }

    def result(recipe: str, name: str, seed: int) -> SetResult:
        report = evaluate_predictions(LABELS, tables[recipe, name, seed], SLIDES, resamples=200)
        return SetResult.from_dict(evaluation_document(report))

    models = [
        a_model(
            recipe,
            [
                a_run(
                    seed,
                    {name: result(recipe, name, seed) for name in sets},
                    (seconds or {}).get(recipe, 100.0),
                )
                for seed in range(seeds)
            ],
            (titles or {}).get(recipe, ""),
        )
        for recipe in shares
    ]
    paired = [
        compare_predictions(
            LABELS, SLIDES,
            *(Answers(recipe, seed, tables[recipe, name, seed]) for recipe in pair),
            set_name=name, resamples=200,
        )
        for seed in range(seeds)
        for name in sets
        for pair in itertools.combinations(shares, 2)
    ]  # fmt: skip
    return a_report(models, paired)


def told(report: ComparisonReport, **options: Any) -> str:
    return " ".join(verdict(report, **options))


def test_a_clear_winner_is_named_with_everything_beside_it() -> None:
    report = experiment(
        {"cnn": 0.97, "mobilenetv2": 0.85},
        seconds={"cnn": 192.0, "mobilenetv2": 8.2},
        titles={"cnn": "the small CNN", "mobilenetv2": "frozen MobileNetV2"},
    )
    between = [{"splits": ["train", "test"], "count": 26}]
    text = told(replace(report, audit={"shared_slides": {"between": between}}))
    assert "the small CNN is more accurate than frozen MobileNetV2" in text
    assert "in 3 of 3 seeds" in text
    assert "(400 images, 16 slides; always answering Basophil gives 20.0%)" in text
    assert "95% interval" in text
    assert "balanced accuracy" in text
    assert "Training has seen 26 of these slides" in text
    assert "3.2 min for the small CNN and 8.2 s for frozen MobileNetV2 (means over seeds)" in text
    assert "No unseen folder was given" in text
    assert "Training has seen" not in told(report)


def test_equal_models_are_not_separated() -> None:
    text = told(experiment({"cnn": 0.9, "mobilenetv2": 0.9}))
    assert "The data do not separate cnn from mobilenetv2" in text
    assert "more accurate" not in text


def test_one_seed_says_so() -> None:
    text = told(experiment({"cnn": 0.8, "mobilenetv2": 0.95}, seeds=1))
    assert "mobilenetv2 is more accurate than cnn" in text
    assert "in the one seed that was run; another seed may say otherwise" in text


def test_unseen_folders_stand_beside_their_majority() -> None:
    rates = {"cnn": 0.97, "mobilenetv2": 0.85}
    report = experiment(rates, unseen={"cnn": 0.1, "mobilenetv2": 0.12}, seeds=1)
    text = told(report)
    assert "On the unseen folder jtsc (400 images" in text
    assert "which is no better than that constant answer" in text
    assert "the data do not separate them there" in text


def test_a_winner_that_loses_on_balanced_accuracy_is_told() -> None:
    report = experiment({"cnn": 0.97, "mobilenetv2": 0.85}, seeds=1)
    (test,) = report.paired
    other = test.bootstrap.differences | {"balanced_accuracy": Difference(-0.15, -0.2, -0.1)}
    turned = replace(test, bootstrap=replace(test.bootstrap, differences=other))
    assert "On balanced accuracy it is the other way round: mobilenetv2" in told(
        replace(report, paired=(turned,))
    )


def test_a_set_that_was_not_evaluated() -> None:
    report = experiment({"cnn": 0.9}, seeds=1)
    with pytest.raises(DataError, match="'elsewhere'"):
        verdict(report, set_name="elsewhere")
    assert "nothing to compare" in told(report)


def test_a_comparison_comes_back_from_its_document() -> None:
    report = experiment(
        {"cnn": 0.9, "mobilenetv2": 0.8}, seeds=2, unseen={"cnn": 0.5, "mobilenetv2": 0.4}
    )
    document = comparison_document(report)
    assert document["verdict"] == told(report)
    assert document["seeds"] == [0, 1]
    assert document["models"][0]["input"] == [32, 48]
    assert "history" not in document["models"][0]["runs"][0]
    again = ComparisonReport.from_dict(json.loads(json.dumps(document)))
    assert verdict(again) == verdict(report)
    sentences = {name: document[name] for name in ("warnings", "verdict")}
    assert again.to_dict(**sentences) == document


def test_balancing_is_added_up_where_files_are_written() -> None:
    run = replace(a_run(0, {}), seconds={"balance": 1.25, "total": 9.0})
    report = a_report(
        [replace(a_model("cnn", [run]), runs=(run, run)), a_model("b", [a_run(0, {})])]
    )
    assert report.to_dict(warnings=(), verdict="")["balance"] == {"seconds": 2.5, "images": 30}


RESULT = SetResult.from_dict(
    evaluation_document(evaluate_predictions(LABELS, answers(0.9, 1), SLIDES, resamples=20))
)


def warned(recipe: str, by_seed: Sequence[tuple[Sequence[str], Sequence[str]]]) -> Model:
    """A model whose evaluations on two sets warn, seed by seed."""
    runs = [
        a_run(
            seed,
            {
                "validation": replace(RESULT, warnings=tuple(own)),
                "jtsc": replace(RESULT, warnings=("No slides.", *also)),
            },
        )
        for seed, (own, also) in enumerate(by_seed)
    ]
    return a_model(recipe, runs, f"The {recipe}")


def test_warnings_are_collected_once_and_say_whose_they_are() -> None:
    few = "There are only 3 slides."
    cnn = warned("cnn", [([], []), ([few, few], [])])
    report = a_report([cnn, warned("flagship", [([], ["No mistake."]), ([few], ["No mistake."])])])
    assert comparison_warnings(report) == [
        "Validation (seed 1): There are only 3 slides.",
        "jtsc: No slides.",
        "jtsc (The flagship): No mistake.",
    ]
    report = a_report([cnn, warned("flagship", [([], ["No mistake."]), ([], [])])])
    assert comparison_warnings(replace(report, notes=("No slides.", "No slides."))) == [
        "No slides.",
        "Validation (The cnn, seed 1): There are only 3 slides.",
        "jtsc (The flagship, seed 0): No mistake.",
    ]
    assert comparison_warnings(a_report([])) == []


def test_a_head_start_is_told_first() -> None:
    model = a_model("cnn", [a_run(0, {"test": replace(RESULT, warnings=("Rough.",))})], "One")
    seen = {"train": [50, 50], "jtsc": [0, 20], "test": [3, 30]}
    assert comparison_warnings(a_report([replace(model, start={"seen": seen})])) == [
        "One has a head start: before it was trained it had learned from 50 of 50 images of train, "
        "3 of 30 images of test.",
        "Test: Rough.",
    ]


def test_recipes_of_one_title_are_told_apart() -> None:
    own = {"sampled": "Sampled", "files": "Files"}
    assert recipe_titles(own) == own
    assert recipe_titles(dict.fromkeys(own, "The same")) == {"sampled": "sampled", "files": "files"}
    models = [a_model(name, [a_run(0, {})], "The same") for name in own]
    assert a_report(models).titles == {"sampled": "sampled", "files": "files"}
