from __future__ import annotations

import numpy as np
import pytest

from leuko.errors import DataError
from leuko.evaluation.counting import correction as adjust
from leuko.evaluation.counting.limits import exact_interval
from leuko.evaluation.intervals import OVER_IMAGES, OVER_SLIDES, WILSON, WILSON_BY_SLIDE
from leuko.scheme import load_scheme

pytestmark = pytest.mark.slow

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

NONE = np.zeros(5)
SCHEME = load_scheme("differential-5")
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
    low, high = adjust.adjusted_draws([0, 0, 0, 0, 9], NONE, confusion, seed=0).limits()
    assert (high - low).min() > 0.3


def test_accepted_and_others_are_taken_back_apart():
    tables = adjust.Tables(1e9 * np.eye(5), 0.5 * np.eye(5) + 0.1)
    shares = np.array([0.1, 0.2, 0.3, 0.2, 0.2])
    found = adjust.adjusted_shares([0, 0, 0, 0, 60], 40 * shares @ tables.others, tables)
    np.testing.assert_allclose(found, 0.6 * np.eye(5)[4] + 0.4 * shares)
    np.testing.assert_allclose(adjust.adjusted_shares([1, 2, 3, 2, 2], NONE, tables), shares)


def test_many_classes_of_which_few_are_present_give_the_nearest_composition():
    rng = np.random.default_rng(0)
    confusion = 60 * rng.dirichlet(np.full(20, 0.4), 20) + 100 * np.eye(20)
    counts = rng.multinomial(300, rng.dirichlet(np.full(20, 0.2)))
    shares = adjust.adjust_shares(counts, confusion)
    assert shares.min() == 0
    assert shares.sum() == pytest.approx(1)
    # No share can go elsewhere and come nearer (Karush, Kuhn, Tucker).
    slope = rows_of(confusion) @ (shares @ rows_of(confusion) - counts / 300)
    assert (slope - slope @ shares).min() > -1e-12


# Limits


@pytest.mark.parametrize("counts", [[0, 5, 20, 5, 70], [1, 0, 0, 0, 199], [30, 0, 0, 0, 0]])
def test_without_confusion_the_limits_are_clopper_and_pearsons(counts):
    low, high = adjust.adjusted_draws(counts, NONE, np.eye(5) * 1e9, seed=0, draws=39_999).limits()
    wanted = np.array([exact_interval(k, sum(counts)) for k in counts])
    np.testing.assert_allclose(low, wanted[:, 0], atol=0.004)
    np.testing.assert_allclose(high, wanted[:, 1], atol=0.004)
    sampled = adjust.sampled_draws(counts, seed=1, draws=39_999).limits()
    np.testing.assert_allclose(np.transpose(sampled), wanted, atol=0.004)


def test_few_validation_cells_widen_the_limits():
    counts = [400, 300, 3000, 700, 5600]
    ten_times = adjust.adjusted_draws(counts, NONE, 10 * CONFUSION, seed=0).limits()
    once = adjust.adjusted_draws(counts, NONE, CONFUSION, seed=0).limits()
    a_tenth = adjust.adjusted_draws(counts, NONE, CONFUSION, seed=0, effect=10).limits()
    widths = [high - low for low, high in (ten_times, once, a_tenth)]
    assert (widths[0][[0, 3]] < widths[1][[0, 3]]).all()
    # 48 of 49 basophils right say no more than 4.8 of 4.9 do, tenfold less: theirs grow most.
    assert widths[2][0] > 1.3 * widths[1][0]
    # The upper limit of a class found in 4% of cells: its sensitivity may be as low as 0.89.
    assert exact_interval(48, 49)[0] == pytest.approx(0.891, abs=0.001)
    assert once[1][0] > exact_interval(400, 10_000)[1]


def test_more_cells_left_open_widen_the_limits():
    counts = np.array([2, 8, 60, 14, 116])
    widths = []
    for share in (0, 0.1, 0.4):
        others = np.round(share * counts)
        low, high = adjust.adjusted_draws(counts - others, others, CONFUSION, seed=0).limits()
        widths.append(high - low)
    assert (widths[0] < widths[1])[[2, 4]].all()
    assert (widths[0] < widths[2]).all()
    # With no answer accepted nearly anything may be; there are two basophils, or many more.
    low, high = adjust.adjusted_draws(NONE, counts, CONFUSION, seed=0).limits()
    assert (high - low)[[2, 4]].min() > 0.5


def test_the_same_seed_gives_the_same_limits_and_another_nearly():
    parts = [2, 8, 50, 12, 106], [0, 0, 10, 2, 10]
    one, again = (adjust.adjusted_draws(*parts, CONFUSION, seed=3).limits() for _ in range(2))
    np.testing.assert_array_equal(one, again)
    other = adjust.adjusted_draws(*parts, CONFUSION, seed=4).limits()
    np.testing.assert_allclose(one, other, atol=0.015)


def test_no_cell_is_an_error():
    with pytest.raises(DataError, match="no cell to count"):
        adjust.adjusted_draws(NONE, NONE, CONFUSION, seed=0)


OFF = ~np.eye(5, dtype=bool)
STATED = {"trust": {"decisions": {"shares": {"class": 0.87}, "accuracy": 0.997}}}
TABLE = adjust.split_confusion(STATED, CONFUSION.astype(float)).accepted


def drawn_confusions(rates, rng):
    """Matrices with these rates of error by class, the errors going anywhere: (R, 5, 5)."""
    matrix = np.zeros((len(rates), 5, 5))
    matrix[:, OFF] = (rates[..., None] * rng.dirichlet(np.ones(4), rates.shape)).reshape(-1, 20)
    matrix[:, ~OFF] = 1 - rates
    return matrix


def coverage(shares, n, accepted, most_wrong, *, repeats=500, seed=0):
    """How often limits hold the truth, each count by a microscope of its own.

    Classes are accepted unequally, accepted cells are wrong up to 5 times as often as in the
    table, the others up to ``most_wrong``.
    """
    rng = np.random.default_rng(seed)
    wrong = 1 - rows_of(TABLE).diagonal()
    odds = np.log(accepted / (1 - accepted)) + rng.normal(size=(repeats, 5)) * rng.uniform(
        0, 1.5, (repeats, 1)
    )
    taken = 1 / (1 + np.exp(-odds))
    sure = drawn_confusions(np.minimum(0.5, wrong * rng.uniform(0, 5, (repeats, 5))), rng)
    left = drawn_confusions(rng.uniform(0, most_wrong, (repeats, 5)), rng)
    seen = [np.einsum("rk,rkj->rj", part, matrix)
            for part, matrix in ((shares * taken, sure), (shares * (1 - taken), left))]  # fmt: skip
    counts = rng.multinomial(n, np.concatenate(seen, axis=1)).reshape(-1, 2, 5)
    low, high = adjust.adjusted_draws(
        counts[:, 0], counts[:, 1], TABLE, seed=rng, draws=79
    ).limits()
    return ((low <= shares) & (shares <= high)).mean(axis=0)


NOISE = 3 * np.sqrt(0.94 * 0.06 / 500)
EOSINOPHILIA = np.array([0.02, 0.2, 0.2, 0.08, 0.5])


@pytest.mark.parametrize("accepted", [0.65, 0.8, 0.95])
@pytest.mark.parametrize(
    ("shares", "n"), [(ADULT, 200), (ADULT, 1000), (EOSINOPHILIA, 400), (np.full(5, 0.2), 100)]
)
def test_limits_hold_the_truth_under_selective_acceptance(shares, n, accepted):
    assert coverage(shares, n, accepted, 0.4, seed=n).min() >= 0.94 - NOISE


def test_where_few_are_accepted_limits_would_not_hold():
    """Why none are printed: the fewer are accepted, the more often the others are wrong."""
    assert coverage(np.array([0.002, 0.005, 0.08, 0.04, 0.873]), 1000, 0.15, 0.9).min() < 0.9


def test_ratios_and_shares_of_counted_cells_hold_the_truth():
    """The last class is not counted, and has a fifth of the cells."""
    counted, white = [True] * 4 + [False], np.array([0.02, 0.03, 0.5, 0.25])
    rng, rows = np.random.default_rng(3), rows_of(TABLE)
    cells = rng.multinomial(400, np.append(white, 0.2) @ rows, size=500)
    low, high = adjust.adjusted_draws(
        cells, np.zeros_like(cells), TABLE, seed=rng, draws=79, counted=counted
    ).limits()
    truth = np.append(white, 0.2) / white.sum()
    assert ((low <= truth) & (truth <= high)).mean(axis=0).min() >= 0.94 - NOISE


def test_limits_of_sampling_alone_would_not_cover():
    # Why the count is corrected: 2% of the neutrophils are called eosinophils.
    n, rng = 1000, np.random.default_rng(6)
    eosinophils = rng.binomial(n, (ADULT @ rows_of(CONFUSION))[1], size=5000)
    found, times = np.unique(eosinophils, return_counts=True)
    ends = [exact_interval(k, n) for k in found.tolist()]
    held = np.array([low <= ADULT[1] <= high for low, high in ends]) @ times / 5000
    assert held < 0.6


def test_limits_are_of_use_where_nine_in_ten_are_accepted():
    """200 cells; of the 24 left open one in ten is wrong. Median width against exact limits."""
    rng = np.random.default_rng(0)
    shares = np.array([0.02, 0.075, 0.24, 0.055, 0.61])
    taken = np.array([0.45, 0.69, 0.93, 0.66, 0.935])
    left = 0.875 * np.eye(5) + 0.025
    ratios = []
    for _ in range(60):
        cells = rng.multinomial(200, shares)
        sure = rng.binomial(cells, taken)
        others = sum(rng.multinomial(k, row) for k, row in zip(cells - sure, left))
        low, high = adjust.adjusted_draws(sure, others, TABLE, seed=rng, draws=399).limits()
        exact = np.array([exact_interval(int(k), 200) for k in cells])
        ratios.append((high - low) / (exact[:, 1] - exact[:, 0]))
    assert np.median(ratios) <= 1.5


# What a bundle tells


def test_a_missing_or_damaged_confusion_is_told():
    def found(table, **others):
        return adjust.validation_confusion({"confusion": table, **others}, SCHEME)

    np.testing.assert_array_equal(found(CONFUSION.tolist()), CONFUSION)
    assert found(None) == adjust.Unmeasured("none")
    for table in ([[1, 2]], "x", [[None] * 5] * 5, (-CONFUSION).tolist(), [[1], [2, 3]]):
        assert found(table) == adjust.Unmeasured("other-classes")
    empty = CONFUSION.copy()
    empty[[0, 3]] = 0
    assert found(empty.tolist()) == adjust.Unmeasured("absent", ("Basophil", "Monocyte"))
    assert found(CONFUSION.tolist(), split="random-file") == adjust.Unmeasured("copies")


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
    slides, each, repeats, shares = 14, 143, 200, np.array([0, 0.03, 0, 0, 0.97])
    held = []
    for _ in range(repeats):
        odds = np.array([rate, 1 - rate]) * (1 - alike) / alike
        wrong = int(rng.binomial(each, rng.beta(*odds, size=slides)).sum())
        told = perfect(slides * each, slides, wrong, method=WILSON_BY_SLIDE)
        confusion = np.eye(5) * 150
        confusion[4, [1, 4]] = wrong, slides * each - wrong
        counts = rng.multinomial(1000, [0, 0.03 + 0.97 * rate, 0, 0, 0.97 * (1 - rate)])
        if wrong < 20:
            low, high = adjust.adjusted_draws(
                counts, NONE, confusion, seed=rng, draws=79, effect=adjust.design_effect(told)
            ).limits()
            held.append(low[1] <= shares[1] <= high[1])
    assert len(held) > repeats / 3
    assert np.mean(held) >= 0.95


def test_accepted_and_others_are_told_apart_by_what_a_bundle_states():
    told = {"trust": {"decisions": {"shares": {"class": 0.9, "x": 0.1}, "accuracy": 0.997}}}
    tables = adjust.split_confusion(told, CONFUSION.astype(float))
    np.testing.assert_allclose(tables.accepted.sum(axis=1), 0.9 * CONFUSION.sum(axis=1))
    right = tables.accepted.trace() / tables.accepted.sum()
    assert right == pytest.approx(0.997)
    # What is wrong in all is wrong in one of the two.
    wrong = 1 - CONFUSION.trace() / CONFUSION.sum()
    np.testing.assert_allclose(1 - tables.others.diagonal(), (wrong - 0.9 * 0.003) / 0.1)
    np.testing.assert_allclose(tables.others.sum(axis=1), 1)
    assert tables.others[4].argsort()[-2:].tolist() == [1, 4]  # neutrophils taken for eosinophils
    for silent in ({}, {"trust": None}, {"trust": {"decisions": {"shares": {}, "accuracy": 1}}}):
        tables = adjust.split_confusion(silent, CONFUSION.astype(float))
        np.testing.assert_array_equal(tables.accepted, CONFUSION)
        np.testing.assert_allclose(1 - tables.others.diagonal(), wrong)
    perfect_table = adjust.split_confusion(told, 100 * np.eye(5))
    np.testing.assert_array_equal(perfect_table.accepted, 90 * np.eye(5))
