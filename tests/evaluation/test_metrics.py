from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leuko import statistics
from leuko.errors import DataError
from leuko.evaluation import metrics


def drawn_rows(seed, n=300, classes=(0, 1, 2, 3, 4), signal=1.5, decimals=None):
    """Labels and probabilities that are right more often than not; rounding makes ties."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, size=n)
    logits = generator.normal(size=(n, 5))
    logits[np.arange(n), labels] += signal
    table = np.exp(logits)
    table /= table.sum(axis=1, keepdims=True)
    if decimals is not None:
        table[:, :4] = np.floor(table[:, :4] * 10**decimals) / 10**decimals
        table[:, 4] = 1 - table[:, :4].sum(axis=1)
    return labels, table


BY_HAND = np.array(
    [
        [3, 1, 0, 0, 0],
        [0, 4, 0, 0, 1],
        [0, 0, 0, 0, 0],
        [0, 0, 2, 0, 0],
        [1, 0, 0, 0, 8],
    ]
)


def test_confusion_matrix_has_true_classes_in_rows():
    table = metrics.confusion_matrix([0, 0, 3, 4], [0, 2, 3, 0], 5)
    assert table[0].tolist() == [1, 0, 1, 0, 0]
    assert table[3, 3] == 1
    assert table[4, 0] == 1
    assert table.sum() == 4


def test_values_worked_out_by_hand():
    assert metrics.accuracy(BY_HAND) == pytest.approx(15 / 20)
    np.testing.assert_allclose(
        metrics.sensitivity(BY_HAND), [3 / 4, 4 / 5, np.nan, 0, 8 / 9], rtol=1e-12
    )
    # The lymphocyte is absent and was answered twice; the monocyte was never the answer.
    np.testing.assert_allclose(metrics.precision(BY_HAND), [3 / 4, 4 / 5, 0, 0, 8 / 9])
    np.testing.assert_allclose(
        metrics.specificity(BY_HAND), [15 / 16, 14 / 15, 18 / 20, 1, 10 / 11]
    )
    np.testing.assert_allclose(metrics.f1_scores(BY_HAND), [6 / 8, 8 / 10, np.nan, 0, 16 / 18])
    assert metrics.balanced_accuracy(BY_HAND) == pytest.approx((0.75 + 0.8 + 0 + 8 / 9) / 4)
    assert metrics.macro_f1(BY_HAND) == pytest.approx((0.75 + 0.8 + 0 + 8 / 9) / 4)
    assert metrics.majority_baseline(BY_HAND) == (4, 0.45)


def test_absent_class_that_is_never_answered_has_no_precision():
    table = metrics.confusion_matrix([0, 1], [0, 1], 5)
    assert np.isnan(metrics.precision(table)[2:]).all()
    assert np.isnan(metrics.sensitivity(table)[2:]).all()
    assert metrics.specificity(table)[2:].tolist() == [1, 1, 1]


def test_one_class_alone_has_no_specificity():
    table = metrics.confusion_matrix([2, 2], [2, 0], 5)
    assert np.isnan(metrics.specificity(table)[2])
    assert metrics.balanced_accuracy(table) == 0.5


def test_stacks_of_matrices_give_what_each_gives_alone():
    stack = np.random.default_rng(1).integers(0, 9, size=(3, 2, 5, 5))
    for measure in (metrics.accuracy, metrics.balanced_accuracy, metrics.macro_f1):
        alone = [[float(measure(one)) for one in row] for row in stack]
        np.testing.assert_allclose(measure(stack), alone)


def test_tables_by_slide_add_up():
    labels, table = drawn_rows(2)
    slides = [f"s{row % 7}" for row in range(len(labels))]
    names, by_slide = metrics.confusion_by_slide(labels, table.argmax(axis=1), slides, 5)
    assert names == [f"s{number}" for number in range(7)]
    np.testing.assert_array_equal(
        by_slide.sum(axis=0), metrics.confusion_matrix(labels, table.argmax(axis=1), 5)
    )
    np.testing.assert_array_equal(
        by_slide[3], metrics.confusion_matrix(labels[3::7], table.argmax(axis=1)[3::7], 5)
    )


@pytest.mark.slow
@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60),
)
def test_confusion_metrics_agree_with_scikit_learn(rows, sklearn_metrics):
    truth, answer = (np.array(column) for column in zip(*rows, strict=True))
    present = sorted(set(truth.tolist()))
    table = metrics.confusion_matrix(truth, answer, 5)
    np.testing.assert_array_equal(
        table, sklearn_metrics.confusion_matrix(truth, answer, labels=range(5))
    )
    assert metrics.accuracy(table) == pytest.approx(sklearn_metrics.accuracy_score(truth, answer))
    assert metrics.balanced_accuracy(table) == pytest.approx(
        sklearn_metrics.recall_score(
            truth, answer, labels=present, average="macro", zero_division=0
        )
    )
    assert metrics.macro_f1(table) == pytest.approx(
        sklearn_metrics.f1_score(truth, answer, labels=present, average="macro", zero_division=0)
    )
    np.testing.assert_allclose(
        metrics.precision(table)[present],
        sklearn_metrics.precision_score(
            truth, answer, labels=present, average=None, zero_division=0
        ),
    )
    for label in present:
        if len(present) > 1:
            assert metrics.specificity(table)[label] == pytest.approx(
                sklearn_metrics.recall_score(truth != label, answer != label)
            )


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=60).filter(
        lambda rows: len({positive for positive, _ in rows}) == 2
    ),
)
def test_curves_with_ties_agree_with_scikit_learn(rows, sklearn_metrics):
    positive, score = (np.array(column) for column in zip(*rows, strict=True))
    score = score / 6
    fpr, tpr = metrics.roc_curve(positive, score)
    theirs = sklearn_metrics.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(fpr, theirs[0], atol=1e-12)
    np.testing.assert_allclose(tpr, theirs[1], atol=1e-12)
    assert metrics.roc_auc(positive, score) == pytest.approx(
        sklearn_metrics.roc_auc_score(positive, score)
    )
    pairs = score[positive][:, np.newaxis] - score[~positive]
    assert metrics.roc_auc(positive, score) == pytest.approx(
        ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    )
    assert metrics.average_precision(positive, score) == pytest.approx(
        sklearn_metrics.average_precision_score(positive, score)
    )
    recall, share = metrics.precision_recall_curve(positive, score)
    theirs_precision, theirs_recall, _ = sklearn_metrics.precision_recall_curve(positive, score)
    np.testing.assert_allclose(recall, theirs_recall[::-1], atol=1e-12)
    np.testing.assert_allclose(share, theirs_precision[::-1], atol=1e-12)


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    order=st.randoms(use_true_random=False),
    permutation=st.permutations(range(5)),
)
def test_order_of_rows_and_names_of_classes_do_not_matter(seed, order, permutation):
    labels, table = drawn_rows(seed, n=40, decimals=1)
    rows = list(range(40))
    order.shuffle(rows)
    for measure in (statistics.log_loss, metrics.brier_score):
        assert measure(labels[rows], table[rows]) == pytest.approx(measure(labels, table))
    answers = table.argmax(axis=1)
    renamed = np.array(permutation)
    before = metrics.confusion_matrix(labels, answers, 5)
    after = metrics.confusion_matrix(renamed[labels], renamed[answers], 5)
    for measure in (metrics.accuracy, metrics.balanced_accuracy, metrics.macro_f1):
        assert measure(after) == pytest.approx(measure(before))
        assert 0 <= measure(before) <= 1


def test_auc_of_all_equal_scores_is_a_half():
    assert metrics.roc_auc([True, False, False], [0.2, 0.2, 0.2]) == 0.5


def test_curves_need_both_kinds_of_images():
    with pytest.raises(DataError, match="received 2 and 0"):
        metrics.roc_curve([True, True], [0.1, 0.2])
    with pytest.raises(DataError, match="received 0"):
        metrics.precision_recall_curve([False], [0.1])


def test_thinned_curve_keeps_its_ends_and_its_area():
    labels, table = drawn_rows(3, n=5000)
    fpr, tpr = metrics.roc_curve(labels == 0, table[:, 0])
    assert len(fpr) > 2000
    across, up = metrics.thin_curve(fpr, tpr, limit=200)
    assert len(across) <= 200
    assert (across[0], up[0], across[-1], up[-1]) == (0, 0, 1, 1)
    area = np.sum(np.diff(across) * (up[1:] + up[:-1]) / 2)
    assert area == pytest.approx(metrics.roc_auc(labels == 0, table[:, 0]), abs=0.003)


def test_thinning_a_straight_line_leaves_two_points():
    line = np.linspace(0, 1, 9)
    across, up = metrics.thin_curve(line, line)
    assert across.tolist() == [0, 1]
    assert up.tolist() == [0, 1]


def test_log_loss_and_brier_agree_with_scikit_learn(sklearn_metrics):
    labels, table = drawn_rows(4)
    assert statistics.log_loss(labels, table) == pytest.approx(
        sklearn_metrics.log_loss(labels, table, labels=range(5))
    )
    assert metrics.brier_score(labels, table) == pytest.approx(
        np.mean((table - np.eye(5)[labels]) ** 2) * 5
    )


def test_log_loss_and_brier_by_hand():
    table = [[0.5, 0.5, 0, 0, 0], [0, 0, 0, 0, 1]]
    assert statistics.log_loss([0, 4], table) == pytest.approx(np.log(2) / 2)
    assert metrics.brier_score([0, 4], table) == pytest.approx((0.25 + 0.25) / 2)
    assert statistics.log_loss([2], [[0, 0, 0, 0, 1]]) == pytest.approx(-np.log(5e-7))
    assert statistics.log_loss([0], [[0.2] * 5]) == pytest.approx(np.log(5))


def test_calibration_by_hand():
    # Confidences 0.4 (right), 0.6 (wrong), 0.6 (right), 1.0 (right) in five bins.
    table = [
        [0.4, 0.3, 0.3, 0, 0],
        [0.6, 0.4, 0, 0, 0],
        [0.6, 0.4, 0, 0, 0],
        [0, 0, 0, 0, 1],
    ]
    bins = statistics.calibration_bins([0, 1, 0, 4], table, bins=5)
    assert [one.n for one in bins] == [0, 1, 2, 0, 1]  # a bin's upper end belongs to it
    assert (bins[2].confidence, bins[2].accuracy) == (pytest.approx(0.6), 0.5)
    assert bins[0].accuracy is None
    assert statistics.expected_calibration_error(bins) == pytest.approx((0.6 + 2 * 0.1 + 0) / 4)


def test_calibration_uses_fifteen_bins_of_equal_width():
    labels, table = drawn_rows(5)
    bins = statistics.calibration_bins(labels, table)
    assert len(bins) == 15
    assert sum(one.n for one in bins) == len(labels)
    np.testing.assert_allclose([one.high - one.low for one in bins], 1 / 15)
    confidence = table.max(axis=1)
    for one in bins:
        assert one.n == ((confidence > one.low) & (confidence <= one.high)).sum()


@pytest.mark.parametrize(
    ("labels", "table", "message"),
    [
        ([], np.empty((0, 5)), "no image to evaluate"),
        ([5], [[0.2] * 5], "expected 0 to 4"),
        ([0.5], [[0.2] * 5], "whole number"),
        ([0, 1], [[0.2] * 5], "one row of classes for each of 2 labels"),
        ([0], [[0.2, 0.2, 0.2, 0.2, np.nan]], "not finite"),
        ([0], [[2.0, -1.0, 0, 0, 0]], "outside 0 to 1"),
        ([0], [[0.5, 0.1, 0, 0, 0]], "sum to 0.6000 in row 0"),
    ],
)
def test_rows_that_do_not_fit_get_one_clear_sentence(labels, table, message):
    with pytest.raises(DataError, match=message):
        metrics.check_rows(labels, table)


def test_one_slide_for_each_label():
    with pytest.raises(DataError, match="1 slide names for 2 labels"):
        metrics.confusion_by_slide([0, 1], [0, 1], ["s"], 5)
