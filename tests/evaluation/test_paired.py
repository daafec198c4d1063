from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from answered import LABELS, SLIDES, answers
from leuko.errors import DataError
from leuko.evaluation import paired as compare
from leuko.evaluation.report import SetResult, evaluate_predictions


def discordant(b, c, both=50):
    """Answers of two models with given numbers of images that only one gets right."""
    first = [True] * b + [False] * c + [True] * both
    second = [False] * b + [True] * c + [True] * both
    return first, second


def test_mcnemar_exact_by_hand():
    result = compare.mcnemar(*discordant(9, 1))
    # Two tails of (1 + 10) / 2^10.
    assert result == compare.McNemar(9, 1, 1.0, pytest.approx(22 / 1024), "exact")


def test_mcnemar_chi_squared_by_hand():
    result = compare.mcnemar(*discordant(40, 20))
    assert result.method == "chi2cc"
    assert result.statistic == pytest.approx(19**2 / 60)
    assert result.p_value == pytest.approx(0.01417, abs=1e-5)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(b=st.integers(0, 60), c=st.integers(0, 60))
def test_mcnemar_agrees_with_scipy(scipy_stats, b, c):
    result = compare.mcnemar(*discordant(b, c))
    if b + c == 0:
        expected = 1.0
    elif b + c < 25:
        expected = scipy_stats.binomtest(b, b + c).pvalue
    else:
        expected = scipy_stats.chi2.sf(max(abs(b - c) - 1, 0) ** 2 / (b + c), 1)
    assert result.p_value == pytest.approx(expected)
    turned = compare.mcnemar(*reversed(discordant(b, c)))
    assert (turned.b, turned.c, turned.p_value) == (c, b, result.p_value)


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
    assert list(result.differences) == ["accuracy", "balanced_accuracy", "macro_f1"]
    for one in result.differences.values():
        assert 0 < one.low < one.difference < one.high
        assert one.side == 1
    difference = result.differences["accuracy"].difference
    assert difference == pytest.approx(right_a - right_b)
    assert result.method == "paired percentile bootstrap over slides"
    assert result.resamples == 500
    turned = compare.paired_bootstrap(LABELS, b, a, SLIDES, resamples=500)
    assert turned.differences["accuracy"].difference == pytest.approx(-difference)
    assert turned.differences["accuracy"].side == -1


def test_model_against_itself_has_no_difference():
    a = answers(0.9, 3)
    one, other = compare.Answers("cnn", 0, a), compare.Answers("again", 4, a)
    test = compare.compare_predictions(LABELS, SLIDES, one, other, set_name="test", resamples=50)
    assert (test.a, test.b, test.seeds) == ("cnn", "again", (0, 4))
    assert test.bootstrap.differences["accuracy"] == compare.Difference(0.0, 0.0, 0.0)
    assert test.mcnemar.p_value == 1.0
    (decision,) = compare.decide([test], "test")
    assert (decision.winner, decision.loser) == (None, None)


def test_a_paired_test_comes_back_from_its_document():
    a, b = compare.Answers("cnn", 1, answers(0.9, 3)), compare.Answers("other", 2, answers(0.8, 4))
    test = compare.compare_predictions(LABELS, SLIDES, a, b, set_name="jtsc", resamples=50)
    document = test.to_dict()
    assert list(document) == ["a", "b", "set", "seeds", "mcnemar", "bootstrap"]
    assert list(document["mcnemar"]) == ["b", "c", "statistic", "p_value", "method"]
    assert list(document["bootstrap"]) == [
        "accuracy", "balanced_accuracy", "macro_f1", "method", "level", "resamples", "redrawn",
        "seed",
    ]  # fmt: skip
    assert list(document["bootstrap"]["accuracy"]) == ["difference", "low", "high"]
    assert compare.PairedTest.from_dict(json.loads(json.dumps(document))) == test


def test_paired_interval_is_narrower_than_two_apart():
    # The second model makes the first one's mistakes and 12 more.
    a = answers(0.8, 4)
    b = a.copy()
    rows = np.flatnonzero(a.argmax(axis=1) == LABELS)[::27][:12]
    b[rows] = np.roll(b[rows], 1, axis=1)
    paired = compare.paired_bootstrap(LABELS, a, b, SLIDES).differences["accuracy"]
    alone = evaluate_predictions(LABELS, a, SLIDES).estimates["accuracy"]
    assert paired.difference == pytest.approx(12 / 400)
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)
    assert paired.low > 0


def evaluation(share, seed, slides=SLIDES):
    report = evaluate_predictions(LABELS, answers(share, seed), slides, resamples=300)
    return SetResult.from_dict(json.loads(json.dumps(report.to_dict(warnings=()))))


def test_mean_over_seeds_by_hand():
    reports = [evaluation(0.9, seed) for seed in range(3)]
    values = [report.estimates["accuracy"].value for report in reports]
    result = compare.mean_over_seeds(reports)
    one = result["accuracy"]
    assert set(result) == {"accuracy", "balanced_accuracy", "macro_f1"}
    assert one.mean == pytest.approx(np.mean(values))
    assert one.sd == pytest.approx(np.std(values, ddof=1))
    assert one.low < one.mean < one.high
    assert one.method == "percentile bootstrap over slides of the mean over 3 seeds"
    # Averaging three independent seeds takes away some of what one seed's interval holds.
    own = [report.estimates["accuracy"] for report in reports]
    assert one.high - one.low < max(each.high - each.low for each in own)


def test_mean_over_seeds_of_one_seed_is_its_own_report():
    report = evaluation(0.9, 0)
    one = compare.mean_over_seeds([report])["macro_f1"]
    assert one.sd is None
    own = report.estimates["macro_f1"]
    assert (one.mean, one.low, one.high) == (own.value, own.low, own.high)


def test_mean_over_seeds_without_slides_averages_the_ends():
    reports = [evaluation(0.9, seed, [""] * 400) for seed in range(2)]
    one = compare.mean_over_seeds(reports)["accuracy"]
    assert one.method == compare.MEAN_OF_ENDS
    lows = [report.estimates["accuracy"].low for report in reports]
    assert one.low == pytest.approx(np.mean(lows))
    with pytest.raises(DataError, match="no evaluation"):
        compare.mean_over_seeds([])


def entry(seed, p_value, low, high, *, b=30, c=5, a="cnn", other="mobilenetv2", balanced=(1, 2)):
    differences = {
        "accuracy": compare.Difference((low + high) / 2, low, high),
        "balanced_accuracy": compare.Difference(0, *balanced),
    }
    return compare.PairedTest(
        a, other, "test", (seed, seed), compare.McNemar(b, c, min(b, c), p_value, "exact"),
        compare.PairedBootstrap(differences, "paired", 0.95, 200, 0, 0),
    )  # fmt: skip


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
    three = [replace(one, seeds=(123 if one.a == "published" else 0, 0)) for one in three]
    assert [one.winner for one in compare.decide(three, "test")] == [None] * 3


def test_winner_that_loses_on_balanced_accuracy_is_told():
    decision = compare.decide([entry(0, 0.001, 0.01, 0.02, balanced=(-0.2, -0.1))], "test")[0]
    assert (decision.winner, decision.loser) == ("cnn", "mobilenetv2")
    assert decision.balanced_opposite
