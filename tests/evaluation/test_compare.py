from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from leuko.errors import DataError
from leuko.evaluation import compare
from leuko.evaluation.report import evaluate_predictions
from leuko.render.words import sentences

LABELS = np.tile(np.arange(5), 80)
SLIDES = [f"slide-{row // 25}" for row in range(400)]  # sixteen slides with all classes each


def answers(share, seed):
    """One-hot answers that are right with a given probability."""
    generator = np.random.default_rng(seed)
    wrong = generator.random(400) >= share
    return np.eye(5)[np.where(wrong, (LABELS + 1) % 5, LABELS)]


def discordant(b, c, both=50):
    """Answers of two models with given numbers of images that only one gets right."""
    first = [True] * b + [False] * c + [True] * both
    second = [False] * b + [True] * c + [True] * both
    return first, second


def test_mcnemar_exact_by_hand():
    result = compare.mcnemar(*discordant(9, 1))
    # Two tails of (1 + 10) / 2^10.
    assert result == {
        "b": 9,
        "c": 1,
        "statistic": 1.0,
        "p_value": pytest.approx(22 / 1024),
        "method": "exact",
    }


def test_mcnemar_chi_squared_by_hand():
    result = compare.mcnemar(*discordant(40, 20))
    assert result["method"] == "chi2cc"
    assert result["statistic"] == pytest.approx(19**2 / 60)
    assert result["p_value"] == pytest.approx(0.01417, abs=1e-5)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(b=st.integers(0, 60), c=st.integers(0, 60))
def test_mcnemar_agrees_with_scipy(b, c):
    result = compare.mcnemar(*discordant(b, c))
    if b + c == 0:
        expected = 1.0
    elif b + c < 25:
        expected = scipy.stats.binomtest(b, b + c).pvalue
    else:
        expected = scipy.stats.chi2.sf(max(abs(b - c) - 1, 0) ** 2 / (b + c), 1)
    assert result["p_value"] == pytest.approx(expected)
    turned = compare.mcnemar(*reversed(discordant(b, c)))
    assert (turned["b"], turned["c"], turned["p_value"]) == (c, b, result["p_value"])


def test_mcnemar_needs_the_same_images():
    with pytest.raises(DataError, match="same images"):
        compare.mcnemar([True], [True, False])


def test_holm_by_hand():
    assert compare.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert compare.holm([0.02]) == [0.02]
    assert compare.holm([0.9, 0.8]) == [1.0, 1.0]
    assert compare.holm([]) == []


def test_paired_difference_and_its_interval():
    a, b = answers(0.95, 1), answers(0.85, 2)
    result = compare.paired_bootstrap(LABELS, a, b, SLIDES, resamples=500)
    right_a, right_b = ((one.argmax(axis=1) == LABELS).mean() for one in (a, b))
    assert result["accuracy"]["difference"] == pytest.approx(right_a - right_b)
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        one = result[name]
        assert 0 < one["low"] < one["difference"] < one["high"]
    assert result["method"] == "paired percentile bootstrap over slides"
    assert result["resamples"] == 500
    turned = compare.paired_bootstrap(LABELS, b, a, SLIDES, resamples=500)
    assert turned["accuracy"]["difference"] == pytest.approx(-result["accuracy"]["difference"])


def test_model_against_itself_has_no_difference():
    a = answers(0.9, 3)
    entry = compare.compare_predictions(
        LABELS,
        a,
        a,
        SLIDES,
        a="cnn",
        b="again",
        set_name="test",
        training_seeds=(0, 0),
        resamples=50,
    )
    assert entry["bootstrap"]["accuracy"] == {"difference": 0.0, "low": 0.0, "high": 0.0}
    assert entry["mcnemar"]["p_value"] == 1.0
    (decision,) = compare.decide([entry], "test")
    assert decision.winner is None


def test_paired_interval_is_narrower_than_two_apart():
    # The second model makes the first one's mistakes and 12 more.
    a = answers(0.8, 4)
    b = a.copy()
    rows = np.flatnonzero(a.argmax(axis=1) == LABELS)[::27][:12]
    b[rows] = np.roll(b[rows], 1, axis=1)
    paired = compare.paired_bootstrap(LABELS, a, b, SLIDES)["accuracy"]
    alone = evaluate_predictions(LABELS, a, SLIDES).estimates["accuracy"]
    assert paired["difference"] == pytest.approx(12 / 400)
    assert paired["high"] - paired["low"] < 0.5 * (alone.high - alone.low)
    assert paired["low"] > 0


def evaluation(share, seed, slides=SLIDES):
    return evaluate_predictions(LABELS, answers(share, seed), slides, resamples=300).to_dict()


def test_mean_over_seeds_by_hand():
    reports = [evaluation(0.9, seed) for seed in range(3)]
    values = [report["metrics"]["accuracy"]["value"] for report in reports]
    result = compare.mean_over_seeds(json.loads(json.dumps(reports)))
    one = result["accuracy"]
    assert set(result) == {"accuracy", "balanced_accuracy", "macro_f1"}
    assert one["mean"] == pytest.approx(np.mean(values))
    assert one["sd"] == pytest.approx(np.std(values, ddof=1))
    assert one["low"] < one["mean"] < one["high"]
    assert one["method"] == "percentile bootstrap over slides of the mean over 3 seeds"
    # Averaging three independent seeds takes away some of what one seed's interval holds.
    widths = [r["metrics"]["accuracy"]["high"] - r["metrics"]["accuracy"]["low"] for r in reports]
    assert one["high"] - one["low"] < max(widths)


def test_mean_over_seeds_of_one_seed_is_its_own_report():
    report = evaluation(0.9, 0)
    one = compare.mean_over_seeds([report])["macro_f1"]
    assert one["sd"] is None
    entry = report["metrics"]["macro_f1"]
    assert (one["mean"], one["low"], one["high"]) == (entry["value"], entry["low"], entry["high"])


def test_mean_over_seeds_without_slides_averages_the_ends():
    reports = [evaluation(0.9, seed, [""] * 400) for seed in range(2)]
    one = compare.mean_over_seeds(reports)["accuracy"]
    assert one["method"] == compare.MEAN_OF_ENDS
    lows = [report["metrics"]["accuracy"]["low"] for report in reports]
    assert one["low"] == pytest.approx(np.mean(lows))
    with pytest.raises(DataError, match="no evaluation"):
        compare.mean_over_seeds([])


def experiment(shares, seeds=3, unseen=None, titles=None, seconds=None):
    """The models and paired lists of a comparison whose models are right at given rates."""
    models = []
    sets = {"test": shares} | ({"jtsc": unseen} if unseen else {})
    tables = {
        (recipe, set_name, seed): answers(rates[recipe], 100 * seed + 10 * i + len(set_name))
        for set_name, rates in sets.items()
        for i, recipe in enumerate(shares)
        for seed in range(seeds)
    }
    for recipe in shares:
        runs = [
            {
                "seed": seed,
                "seconds": {"total": (seconds or {}).get(recipe, 100.0)},
                "evaluations": {
                    name: evaluate_predictions(
                        LABELS, tables[recipe, name, seed], SLIDES, resamples=200
                    ).to_dict()
                    for name in sets
                },
            }
            for seed in range(seeds)
        ]
        mean = {
            name: compare.mean_over_seeds([run["evaluations"][name] for run in runs])
            for name in sets
        }
        title = (titles or {}).get(recipe, recipe)
        models.append(
            {"recipe": recipe, "title": title, "experiment": True, "transfer": recipe != "cnn",
             "runs": runs, "mean": mean}
        )  # fmt: skip
    paired = [
        compare.compare_predictions(
            LABELS,
            tables[a, name, seed],
            tables[b, name, seed],
            SLIDES,
            a=a,
            b=b,
            set_name=name,
            training_seeds=(seed, seed),
            resamples=200,
        )
        for seed in range(seeds)
        for name in sets
        for a, b in itertools.combinations(shares, 2)
    ]
    return models, paired


def test_clear_winner_is_claimed_with_everything_beside_it():
    models, paired = experiment(
        {"cnn": 0.97, "mobilenetv2": 0.85},
        seconds={"cnn": 192.0, "mobilenetv2": 8.2},
        titles={"cnn": "the small CNN", "mobilenetv2": "frozen MobileNetV2"},
    )
    (decision,) = compare.decide(paired, "test")
    assert (decision.winner, decision.for_a, decision.for_b, decision.seeds) == ("cnn", 3, 0, 3)
    assert decision.difference > 0.05
    text = compare.verdict(models, paired, shared_slides=26)
    assert "the small CNN is more accurate than frozen MobileNetV2" in text
    assert "in 3 of 3 seeds" in text
    assert "(400 images, 16 slides; always answering Basophil gives 20.0%)" in text
    assert "95% interval" in text
    assert "balanced accuracy" in text
    assert "Training has seen 26 of these slides" in text
    assert "3.2 min for the small CNN and 8.2 s for frozen MobileNetV2 (means over seeds)" in text
    assert "No unseen folder was given" in text
    assert (
        'The conclusion "transfer learning is not always superior" of the published experiment (a '
        "custom CNN and a frozen MobileNetV2 on Raabin-WBC, accuracy 0.932 and 0.891 on Test-A) "
        "holds on test: the small CNN, trained from scratch, beats frozen MobileNetV2."
    ) in text


def test_equal_models_are_not_separated():
    models, paired = experiment({"cnn": 0.9, "mobilenetv2": 0.9})
    (decision,) = compare.decide(paired, "test")
    assert decision.winner is None
    text = compare.verdict(models, paired)
    assert "The data do not separate cnn from mobilenetv2" in text
    assert "can be neither claimed nor denied" in text
    assert "more accurate" not in text


def test_transfer_that_wins_is_no_refutation():
    text = compare.verdict(*experiment({"cnn": 0.8, "mobilenetv2": 0.95}, seeds=1))
    assert "mobilenetv2 is more accurate than cnn" in text
    assert "in the one seed that was run; another seed may say otherwise" in text
    assert "finds no support on test" in text
    told = sentences(text)[-1]
    assert told.startswith('The conclusion "transfer learning')
    assert told.endswith('mobilenetv2 beats cnn; one set cannot refute a "not always".')


@pytest.mark.parametrize(
    "unlike", [{"experiment": False}, {"experiment": None}, {"transfer": None}, {"transfer": True}]
)
def test_the_published_experiment_is_judged_by_its_own_recipes_alone(unlike):
    models, paired = experiment({"cnn": 0.97, "mobilenetv2": 0.85}, seeds=1)
    models[0] |= unlike
    text = compare.verdict(models, paired)
    assert "cnn is more accurate than mobilenetv2" in text
    assert "always superior" not in text


def test_two_kinds_of_transfer():
    text = compare.verdict(
        *experiment({"cnn": 0.88, "mobilenetv2": 0.7, "mobilenetv2-finetuned": 0.99}, seeds=1)
    )
    assert "depends on which transfer" in text
    assert "cnn beats mobilenetv2 and mobilenetv2-finetuned beats cnn" in text


def test_unseen_folders_stand_beside_their_majority():
    text = compare.verdict(
        *experiment(
            {"cnn": 0.97, "mobilenetv2": 0.85}, unseen={"cnn": 0.1, "mobilenetv2": 0.12}, seeds=1
        )
    )
    assert "On the unseen folder jtsc (400 images" in text
    assert "which is no better than that constant answer" in text
    assert "the data do not separate them there" in text


def entry(seed, p_value, low, high, *, b=30, c=5, a="cnn", other="mobilenetv2", balanced=(1, 2)):
    return {
        "a": a,
        "b": other,
        "set": "test",
        "seeds": [seed, seed],
        "mcnemar": {"b": b, "c": c, "p_value": p_value},
        "bootstrap": {
            "accuracy": {"difference": (low + high) / 2, "low": low, "high": high},
            "balanced_accuracy": {"difference": 0, "low": balanced[0], "high": balanced[1]},
        },
    }


def test_test_and_interval_must_both_agree():
    assert compare.decide([entry(0, 0.001, 0.01, 0.02)], "test")[0].winner == "cnn"
    assert compare.decide([entry(0, 0.001, -0.01, 0.02)], "test")[0].winner is None
    assert compare.decide([entry(0, 0.2, 0.01, 0.02)], "test")[0].winner is None
    assert compare.decide([entry(0, 0.001, 0.01, 0.02, b=5, c=30)], "test")[0].winner is None
    assert compare.decide([entry(0, 0.001, 0.01, 0.02)], "validation") == ()


def test_most_seeds_must_agree_and_none_may_object():
    yes = [0.001, 0.01, 0.02]
    no = [0.5, -0.01, 0.02]
    against = entry(9, 0.001, -0.02, -0.01, b=5, c=30)
    two_of_three = [entry(0, *yes), entry(1, *yes), entry(2, *no)]
    assert compare.decide(two_of_three, "test")[0].winner == "cnn"
    assert compare.decide([entry(0, *yes), entry(1, *no)], "test")[0].winner is None
    assert compare.decide([entry(0, *yes), entry(1, *yes), against], "test")[0].winner is None


def test_holm_takes_the_pairs_of_a_seed_together():
    pairs = [("cnn", "mobilenetv2"), ("cnn", "x"), ("mobilenetv2", "x")]
    three = [entry(0, 0.03, 0.01, 0.02, a=a, other=b) for a, b in pairs]
    assert [one.winner for one in compare.decide(three, "test")] == [None] * 3
    assert compare.decide(three[:1], "test")[0].winner == "cnn"


def test_holm_takes_the_pairs_together_whatever_seeds_recipes_begin_with():
    pairs = [("published", "cnn"), ("published", "x"), ("cnn", "x")]
    three = [entry(0, 0.03, 0.01, 0.02, a=a, other=b) for a, b in pairs]
    for one in three:
        one["seeds"] = [123 if one["a"] == "published" else 0, 0]
    assert [one.winner for one in compare.decide(three, "test")] == [None] * 3


def test_winner_that_loses_on_balanced_accuracy_is_told():
    decision = compare.decide([entry(0, 0.001, 0.01, 0.02, balanced=(-0.2, -0.1))], "test")[0]
    assert (decision.winner, decision.balanced_opposite) == ("cnn", True)
    models, _ = experiment({"cnn": 0.97, "mobilenetv2": 0.85}, seeds=1)
    text = compare.verdict(models, [entry(0, 0.001, 0.01, 0.02, balanced=(-0.2, -0.1))])
    assert "On balanced accuracy it is the other way round: mobilenetv2" in text


def warned(recipe, by_seed):
    """A model whose evaluations on two sets warn, seed by seed."""
    runs = [
        {"seed": seed, "evaluations": {"validation": {"warnings": own},
                                       "jtsc": {"warnings": ["No slides.", *also]}}}
        for seed, (own, also) in enumerate(by_seed)
    ]  # fmt: skip
    return {"recipe": recipe, "title": f"The {recipe}", "runs": runs}


def test_warnings_are_collected_once_and_say_whose_they_are():
    few = "There are only 3 slides."
    models = [
        warned("cnn", [([], []), ([few, few], [])]),
        warned("flagship", [([], ["No mistake."]), ([few], ["No mistake."])]),
    ]
    assert compare.collect_warnings(models) == [
        "Validation (seed 1): There are only 3 slides.",
        "jtsc: No slides.",
        "jtsc (The flagship): No mistake.",
    ]
    models[1]["runs"][1]["evaluations"]["jtsc"]["warnings"].pop()
    models[1]["runs"][1]["evaluations"]["validation"]["warnings"].pop()
    assert compare.collect_warnings(models, known=["No slides."]) == [
        "Validation (The cnn, seed 1): There are only 3 slides.",
        "jtsc (The flagship, seed 0): No mistake.",
    ]
    assert compare.collect_warnings([]) == []


def test_verdict_on_a_set_that_was_not_evaluated():
    models, paired = experiment({"cnn": 0.9}, seeds=1)
    with pytest.raises(DataError, match="'elsewhere'"):
        compare.verdict(models, paired, set_name="elsewhere")
    assert "nothing to compare" in compare.verdict(models, paired)
