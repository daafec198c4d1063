from __future__ import annotations

import numpy as np
import pytest

from leuko.errors import DataError
from leuko.evaluation import differential_adjust as adjust
from leuko.evaluation.differential_limits import exact_interval
from leuko.evaluation.intervals import OVER_IMAGES, OVER_SLIDES, WILSON, WILSON_BY_SLIDE

CONFUSION = np.array(
    [
        [48, 0, 1, 0, 0],
        [0, 148, 0, 1, 0],
        [0, 1, 562, 12, 0],
        [0, 0, 6, 162, 0],
        [0, 25, 3, 2, 1254],
    ]
)
"""A fine-tuned network on 14 slides: 49 basophils, and neutrophils taken for eosinophils."""

ADULT = np.array([0.005, 0.03, 0.30, 0.07, 0.595])


def rows_of(confusion):
    return confusion / confusion.sum(axis=1, keepdims=True)


# The point


def test_adjusting_is_the_inverse_where_that_is_a_composition():
    rows = rows_of(CONFUSION)
    seen = ADULT @ rows
    np.testing.assert_allclose(adjust.adjust_shares(seen, CONFUSION), ADULT, atol=1e-9)
    counts = [12, 70, 300, 80, 538]
    direct = np.linalg.solve(rows.T, np.array(counts) / 1000)
    assert direct.min() > 0
    np.testing.assert_allclose(adjust.adjust_shares(counts, CONFUSION), direct, atol=1e-9)


def test_two_classes_give_rogan_and_gladens_estimate():
    # Sensitivity 0.9 and specificity 0.8 for neutrophils against lymphocytes; 130 of 200 called.
    confusion = np.eye(5) * 100
    confusion[4, [2, 4]] = 10, 90
    confusion[2, [2, 4]] = 80, 20
    wanted = (130 / 200 + 0.8 - 1) / (0.9 + 0.8 - 1)
    shares = adjust.adjust_shares([0, 0, 70, 0, 130], confusion)
    np.testing.assert_allclose(shares, [0, 0, 1 - wanted, 0, wanted], atol=1e-9)


def test_a_count_below_its_false_positives_stays_on_the_simplex():
    # 2% of neutrophils are called eosinophils; 1% are found, so there are none.
    counts = np.array([0, 2, 60, 14, 124])
    shares = adjust.adjust_shares(counts, CONFUSION)
    assert shares[1] == 0
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(1)
    # No other composition comes nearer: tried with 20,000.
    rows, seen = rows_of(CONFUSION), counts / counts.sum()
    others = np.random.default_rng(0).dirichlet(1 + 300 * shares, size=20_000)
    misses = ((others @ rows - seen) ** 2).sum(axis=1)
    assert ((shares @ rows - seen) ** 2).sum() <= misses.min()


def test_classes_that_validation_cannot_tell_apart_still_give_a_composition():
    confusion = np.zeros((5, 5))
    confusion[:, 4] = 100
    shares = adjust.adjust_shares([0, 0, 0, 0, 9], confusion)
    assert shares.sum() == pytest.approx(1)
    low, high = adjust.adjusted_draws([0, 0, 0, 0, 9], confusion, seed=0).limits()
    assert (high - low).min() > 0.9


# Limits


@pytest.mark.parametrize("counts", [[0, 5, 20, 5, 70], [1, 0, 0, 0, 199], [30, 0, 0, 0, 0]])
def test_without_confusion_the_limits_are_clopper_and_pearsons(counts):
    low, high = adjust.adjusted_draws(counts, np.eye(5) * 1e9, seed=0, draws=39_999).limits()
    wanted = np.array([exact_interval(k, sum(counts)) for k in counts])
    np.testing.assert_allclose(low, wanted[:, 0], atol=0.004)
    np.testing.assert_allclose(high, wanted[:, 1], atol=0.004)
    sampled = adjust.sampled_draws(counts, seed=1, draws=39_999).limits()
    np.testing.assert_allclose(np.transpose(sampled), wanted, atol=0.004)


def test_few_validation_cells_widen_the_limits():
    counts = [400, 300, 3000, 700, 5600]
    ten_times = adjust.adjusted_draws(counts, 10 * CONFUSION, seed=0).limits()
    once = adjust.adjusted_draws(counts, CONFUSION, seed=0).limits()
    a_tenth = adjust.adjusted_draws(counts, CONFUSION, seed=0, effect=10).limits()
    widths = [high - low for low, high in (ten_times, once, a_tenth)]
    assert (widths[0] < widths[1]).all()
    assert (widths[1] < widths[2]).all()
    # 48 of 49 basophils right say no more than 4.8 of 4.9 do, tenfold less: theirs grow most.
    assert widths[2][0] > 1.3 * widths[1][0]
    # The upper limit of a class found in 4% of cells: its sensitivity may be as low as 0.89.
    assert exact_interval(48, 49)[0] == pytest.approx(0.891, abs=0.001)
    assert once[1][0] > exact_interval(400, 10_000)[1]


def test_the_same_seed_gives_the_same_limits_and_another_nearly():
    counts = [2, 8, 60, 14, 116]
    one, again = (adjust.adjusted_draws(counts, CONFUSION, seed=3).limits() for _ in range(2))
    np.testing.assert_array_equal(one, again)
    other = adjust.adjusted_draws(counts, CONFUSION, seed=4).limits()
    np.testing.assert_allclose(one, other, atol=0.01)


def test_what_validation_leaves_open_is_where_limits_end():
    counts = np.array([5, 48, 300, 72, 575])
    for effect in (1.0, 5.0):
        left = adjust.left_open(counts, CONFUSION, seed=0, effect=effect)
        many = adjust.adjusted_draws(counts * 10_000, CONFUSION, seed=1, effect=effect)
        low, high = many.limits()
        np.testing.assert_allclose((high - low) / 2, left, rtol=0.1, atol=3e-4)


def test_no_cell_is_an_error():
    with pytest.raises(DataError, match="no cell to count"):
        adjust.adjusted_draws([0, 0, 0, 0, 0], CONFUSION, seed=0)


def coverage(confusion, shares, n, *, repeats, seed, draws=79):
    """How often limits hold the truth, the table and the count drawn through a known matrix."""
    rng = np.random.default_rng(seed)
    cells = confusion.sum(axis=1).round().astype(int)
    rows = rows_of(confusion)
    held = np.zeros(5)
    for _ in range(repeats // 250):
        tables = rng.multinomial(np.tile(cells, (250, 1)), rows)
        counts = rng.multinomial(n, shares @ rows, size=250)
        low, high = adjust.adjusted_draws(counts, tables, seed=rng, draws=draws).limits()
        held += ((low <= shares) & (shares <= high)).sum(axis=0)
    return held / (repeats // 250 * 250)


@pytest.mark.parametrize(
    ("shares", "n"),
    [(ADULT, 200), (ADULT, 1000), ((0.02, 0.2, 0.2, 0.08, 0.5), 400)],
)
def test_corrected_limits_cover_the_true_composition(shares, n):
    held = coverage(CONFUSION + 1 / 3, np.array(shares), n, repeats=4000, seed=n)
    assert held.min() >= 0.94
    assert held[n * np.array(shares) >= 10].max() <= 0.975


def test_a_poor_classifier_is_covered_as_well():
    confusion = 100 * (0.75 * np.eye(5) + 0.05)
    held = coverage(confusion, ADULT, 500, repeats=4000, seed=5)
    assert held.min() >= 0.94
    assert held[500 * ADULT >= 10].max() <= 0.975


def test_limits_of_sampling_alone_would_not_cover():
    # Why the count is corrected: 2% of the neutrophils are called eosinophils.
    n, rng = 1000, np.random.default_rng(6)
    eosinophils = rng.binomial(n, (ADULT @ rows_of(CONFUSION))[1], size=5000)
    found, times = np.unique(eosinophils, return_counts=True)
    ends = [exact_interval(k, n) for k in found.tolist()]
    held = np.array([low <= ADULT[1] <= high for low, high in ends]) @ times / 5000
    assert held < 0.6


# What a bundle tells


def test_a_missing_or_damaged_confusion_is_told():
    assert adjust.validation_confusion({"confusion": CONFUSION.tolist()})[1] == ""
    assert "imported models have none" in adjust.validation_confusion({})[1]
    for table in ([[1, 2]], "x", [[None] * 5] * 5, (-CONFUSION).tolist(), [[1], [2, 3]]):
        assert "not 5 x 5 counts" in adjust.validation_confusion({"confusion": table})[1]
    empty = CONFUSION.copy()
    empty[[0, 3]] = 0
    confusion, reason = adjust.validation_confusion({"confusion": empty.tolist()})
    assert confusion is None
    assert "without a single Basophil or Monocyte" in reason
    leaked = {"confusion": CONFUSION.tolist(), "split": "random-file"}
    confusion, reason = adjust.validation_confusion(leaked)
    assert confusion is None
    assert "copies of cells that it was trained on" in reason


def validation(value, low, high, *, n=2225, method=OVER_SLIDES):
    accuracy = {"value": value, "low": low, "high": high, "method": method}
    return {"n": n, "metrics": {"accuracy": accuracy}}


def test_design_effect_by_hand():
    # (0.02 / 3.92)² against 0.9 x 0.1 / 2225, the accuracy steadied by four cells.
    p = (0.9 * 2225 + 2) / 2229
    wanted = (0.06 / 3.919928) ** 2 / (p * (1 - p) / 2225)
    assert adjust.design_effect(validation(0.9, 0.87, 0.93)) == pytest.approx(wanted, rel=1e-6)
    assert adjust.design_effect(validation(0.9, 0.899, 0.901)) == 1
    assert adjust.design_effect(validation(0.9, 0.87, 0.93, method=OVER_IMAGES)) == 1
    assert adjust.design_effect(validation(1.0, 1.0, 1.0)) == 1
    assert adjust.design_effect(validation(0.9, None, 0.93)) == 1
    assert adjust.design_effect({}) == 1


def perfect(cells, slides, mistakes=0, *, method=WILSON_BY_SLIDE):
    """What a bundle says of so many right answers; the mistakes are neutrophils."""
    confusion = np.diag([cells // 10] * 4 + [cells - 4 * (cells // 10)])
    confusion[4, [1, 4]] += mistakes, -mistakes
    accuracy = {"value": 1 - mistakes / cells, "low": 0.99, "high": 1.0, "method": method}
    return {"n": cells, "n_slides": slides, "metrics": {"accuracy": accuracy},
            "confusion": confusion.tolist()}  # fmt: skip


def test_no_mistake_on_few_slides_is_not_so_many_independent_cells():
    # 2,000 / 14 cells a slide, of which a fifth of the others tell nothing.
    wanted = 1 + (2000 / 14 - 1) * 0.2
    assert adjust.design_effect(perfect(2000, 14)) == pytest.approx(wanted)
    assert adjust.design_effect(perfect(2000, 14, method=WILSON)) == pytest.approx(wanted)
    assert adjust.design_effect(perfect(2000, 14, 10)) == pytest.approx(1 + (wanted - 1) / 2)
    assert adjust.design_effect(perfect(2000, 14, 20)) == 1
    # Three slides show no spread, whatever the mistakes.
    assert adjust.design_effect(perfect(300, 3, 60)) == pytest.approx(1 + 99 * 0.2)
    # What shows more than that stays.
    spread = perfect(2000, 14, 40, method=OVER_SLIDES)
    spread["metrics"]["accuracy"] |= {"low": 0.96}
    assert adjust.design_effect(spread) > 2
    # Where slides are not told nothing is assumed; `leuko count` says so.
    for slides in (1, 2000):
        assert adjust.design_effect(perfect(2000, slides, method=WILSON)) == 1
        assert not adjust.slides_are_told(perfect(2000, slides))
    assert adjust.slides_are_told(perfect(2000, 14))
    assert not adjust.slides_are_told({"n": 2000})


def test_an_effect_that_a_bundle_states_is_taken():
    assert adjust.design_effect(perfect(50, 7) | {"effect": 3.5}) == 3.5
    assert adjust.design_effect(perfect(50, 7) | {"effect": 0.2}) == 1
    for nonsense in (None, "3", True, float("nan")):
        told = perfect(50, 7)
        assert adjust.design_effect(told | {"effect": nonsense}) == adjust.design_effect(told)


@pytest.mark.parametrize(("rate", "alike"), [(0.002, 0.05), (0.005, 0.1), (0.01, 0.2)])
def test_limits_cover_where_validation_saw_few_mistakes_or_none(rate, alike):
    """14 slides of 143 neutrophils, taken for eosinophils at a rate that differs by slide."""
    rng = np.random.default_rng(21)
    slides, each, repeats, shares = 14, 143, 300, np.array([0, 0.03, 0, 0, 0.97])
    held, alone, few = 0, 0, 0
    for _ in range(repeats):
        odds = np.array([rate, 1 - rate]) * (1 - alike) / alike
        wrong = int(rng.binomial(each, rng.beta(*odds, size=slides)).sum())
        told = perfect(slides * each, slides, wrong, method=WILSON_BY_SLIDE)
        confusion = np.eye(5) * 150
        confusion[4, [1, 4]] = wrong, slides * each - wrong
        counts = rng.multinomial(1000, [0, 0.03 + 0.97 * rate, 0, 0, 0.97 * (1 - rate)])
        if wrong >= 20:
            continue
        few += 1
        for effect in (adjust.design_effect(told), 1.0):
            low, high = adjust.adjusted_draws(
                counts, confusion, seed=rng, draws=199, effect=effect
            ).limits()
            inside = low[1] <= shares[1] <= high[1]
            held, alone = (held + inside, alone) if effect > 1 else (held, alone + inside)
    assert few > repeats / 3
    assert held / few >= 0.95
    assert held > alone


def test_dividing_by_the_design_effect_restores_coverage():
    # 14 slides whose rates of taking a neutrophil for an eosinophil vary: beta, mean 6%.
    rng = np.random.default_rng(7)
    shares, n, slides, each = np.array([0, 0.1, 0, 0, 0.9]), 2000, 14, 90
    held = {1.0: 0, 5.5: 0}
    for _ in range(300):
        rates = rng.beta(1.2, 18.8, size=slides)  # intraclass correlation 1/21: effect 5.2
        confusion = np.eye(5) * 150
        wrong = rng.binomial(each, rates).sum()
        confusion[4, [1, 4]] = wrong, slides * each - wrong
        seen = np.array([0, 0.1 + 0.9 * 0.06, 0, 0, 0.9 * 0.94])
        counts = rng.multinomial(n, seen)
        for effect in held:
            low, high = adjust.adjusted_draws(
                counts, confusion, seed=rng, draws=199, effect=effect
            ).limits()
            held[effect] += low[1] <= shares[1] <= high[1]
    assert held[1.0] / 300 < 0.88
    assert held[5.5] / 300 >= 0.92


# EM


def provenance(**data):
    return {"recipe": {"data": data}}


def test_training_shares_follow_the_recipe():
    told = {"split": "slide", "confusion": CONFUSION.tolist()}
    natural = CONFUSION.sum(axis=1) / CONFUSION.sum()
    find = adjust.training_shares
    np.testing.assert_allclose(find(told, provenance(balance="none")), natural)
    np.testing.assert_allclose(find(told, {}), natural)
    np.testing.assert_allclose(find(told, provenance(balance="fixed")), [0.2] * 5)
    root = np.sqrt(natural)
    half = find(told, provenance(balance="sampled", evenness=0.5))
    np.testing.assert_allclose(half, root / root.sum())
    np.testing.assert_allclose(find(told, provenance(balance="sampled")), [0.2] * 5)
    assert find({}, {}) is None


def test_rows_that_were_not_drawn_like_training_tell_no_training_shares():
    """Cells that somebody checked an export with, or labelled, have shares of their own."""
    even = {"n": 500, "confusion": (100 * np.eye(5)).tolist()}
    trained = {"split": "slide", "confusion": CONFUSION.tolist()}
    natural = CONFUSION.sum(axis=1) / CONFUSION.sum()
    find = adjust.training_shares
    none = provenance(balance="none")
    for split in ({}, {"split": "check"}, {"split": "cross-validated"}, {"split": "other"}):
        assert find(even | split, none) is None
    np.testing.assert_allclose(find(even | {"split": "random-file"}, none), [0.2] * 5)
    # Another precision of the same network: its original's shares, where they are known.
    source = {"variant": {"source": {"validation": trained}}}
    np.testing.assert_allclose(find(even | {"split": "check"}, none | source), natural)
    assert find(even | {"split": "cross-validated"}, none | source) is None
    for inner in ({}, {"split": "cross-validated"}, {"split": "check"}, None):
        source = {"variant": {"source": {"validation": inner}}}
        assert find(even | {"split": "check"}, none | source) is None
    assert find(even | {"split": "check"}, {"variant": "x"}) is None


def test_em_by_hand():
    # log(0.1 + 0.8 p) + log(0.8 - 0.6 p) is largest at p = 0.58 / 0.96.
    told = [[0.9, 0.1, 0, 0, 0], [0.2, 0.8, 0, 0, 0]]
    shares = adjust.reestimate_shares(told, [0.2] * 5)
    assert shares[0] == pytest.approx(0.58 / 0.96, abs=1e-5)
    twice = adjust.reestimate_shares(told, [0.2] * 5, weights=[3, 1])
    assert twice[0] > shares[0]


def test_em_of_certain_answers_is_the_count():
    told = np.eye(5)[[0, 1, 1, 4, 4, 4, 2, 4]]
    shares = adjust.reestimate_shares(told, [0.1, 0.1, 0.2, 0.3, 0.3])
    np.testing.assert_allclose(shares, [1 / 8, 2 / 8, 1 / 8, 0, 4 / 8])


CENTRES = np.array([[0, 0], [2.6, 0], [0, 2.6], [2.2, 2.2], [1.3, -2.4]])
PRIOR = np.array([0.05, 0.15, 0.25, 0.15, 0.40])


def classify(labels, rng):
    """Exact posteriors, under `PRIOR`, of points drawn round one centre a class."""
    points = CENTRES[labels] + rng.normal(size=(len(labels), 2))
    logs = -((points[:, None] - CENTRES) ** 2).sum(axis=2) / 2 + np.log(PRIOR)
    odds = np.exp(logs - logs.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def test_em_finds_a_composition_that_counting_does_not():
    shares = np.array([0.25, 0.3, 0.05, 0.3, 0.1])
    rng = np.random.default_rng(8)
    told = classify(rng.choice(5, size=10_000, p=shares), rng)
    found = adjust.reestimate_shares(told, PRIOR)
    np.testing.assert_allclose(found, shares, atol=0.02)
    counted = np.bincount(told.argmax(axis=1), minlength=5) / len(told)
    assert np.abs(counted - shares).max() > 0.05


def test_em_with_the_shares_of_a_check_set_would_miscount():
    """Why such shares are refused: a class of 1% comes out at a few tenths of that, or none."""
    shares = np.array([0.01, 0.03, 0.3, 0.07, 0.59])
    rng = np.random.default_rng(12)
    told = classify(rng.choice(5, size=20_000, p=shares), rng)
    right, wrong = (adjust.reestimate_shares(told, prior)[0] for prior in (PRIOR, [0.2] * 5))
    assert right == pytest.approx(0.01, abs=0.004)
    assert wrong < 0.003


def test_em_limits_cover_the_true_composition():
    shares = np.array([0.02, 0.18, 0.3, 0.1, 0.4])
    rng = np.random.default_rng(9)
    labels = rng.choice(5, size=2000, p=PRIOR)
    confusion = np.zeros((5, 5))
    np.add.at(confusion, (labels, classify(labels, rng).argmax(axis=1)), 1)
    held, repeats = np.zeros(5), 60
    for _ in range(repeats):
        told = classify(rng.choice(5, size=100, p=shares), rng)
        draws = adjust.reestimated_draws(told, PRIOR, confusion, seed=rng, draws=79)
        low, high = draws.limits()
        held += (low <= shares) & (shares <= high)
    assert (held / repeats).min() >= 0.92


def test_em_limits_of_certain_answers_are_clopper_and_pearsons():
    counts = [0, 5, 20, 5, 70]
    told = np.repeat(np.eye(5), counts, axis=0)
    draws = adjust.reestimated_draws(told, [0.2] * 5, np.eye(5) * 1e9, seed=0, draws=3999)
    wanted = np.array([exact_interval(k, 100) for k in counts])
    np.testing.assert_allclose(np.transpose(draws.limits()), wanted, atol=0.01)


def test_em_limits_lie_round_the_estimate_where_rows_had_to_be_joined():
    rng = np.random.default_rng(11)
    told = classify(rng.choice(5, size=6000, p=[0.01, 0.09, 0.3, 0.2, 0.4]), rng)
    assert len(adjust.grouped(told)[0]) < 2100
    found = adjust.reestimate_shares(told, PRIOR)
    draws = adjust.reestimated_draws(told, PRIOR, np.eye(5) * 1e9, seed=0, draws=199)
    for side in (draws.lower, draws.upper):
        np.testing.assert_allclose(np.median(side, axis=0), found, atol=0.002)


def test_em_refuses_nothing_and_impossible_shares():
    with pytest.raises(DataError, match="0 rows"):
        adjust.reestimate_shares(np.empty((0, 5)), [0.2] * 5)
    with pytest.raises(DataError, match="shares above 0"):
        adjust.reestimate_shares(np.eye(5), [0, 0.25, 0.25, 0.25, 0.25])


def test_grouping_keeps_sums_and_is_bounded():
    told = np.random.default_rng(10).dirichlet(np.ones(5), size=30_000)
    rows, times = adjust.grouped(told)
    assert len(rows) <= 4000
    assert times.sum() == len(told)
    np.testing.assert_allclose(times @ rows, told.sum(axis=0))
    few, times = adjust.grouped(np.repeat(told[:7], 3, axis=0))
    assert sorted(times.tolist()) == [3] * 7
    np.testing.assert_allclose(np.sort(few[:, 0]), np.sort(told[:7, 0]))
