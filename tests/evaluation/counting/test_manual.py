from __future__ import annotations

import re

import numpy as np
import pytest

from leuko.errors import DataError
from leuko.evaluation.counting.correction import adjust_shares, adjusted_draws, sampled_draws
from leuko.evaluation.counting.limits import exact_interval, fisher_p_value
from leuko.evaluation.counting.manual import compare_with_manual, read_manual_counts
from leuko.render.counts import manual_sentences
from leuko.scheme import load_scheme

CONFUSION = np.array(
    [
        [48, 0, 1, 0, 0],
        [0, 148, 0, 1, 0],
        [0, 1, 562, 12, 0],
        [0, 0, 6, 162, 0],
        [0, 125, 3, 2, 1154],
    ]
)
"""One neutrophil in ten is called an eosinophil."""

ADULT = np.array([0.005, 0.03, 0.30, 0.07, 0.595])
GOOD = "class,count\nBasophil,1\nEosinophil,6\nLymphocyte,62\nMonocyte,14\nNeutrophil,117\n"


NONE = np.zeros(5)
FIVE = load_scheme("differential-5")


def read_manual_count(path, scheme=FIVE):
    return read_manual_counts([path], scheme)[0]


def compare(counts, *manual):
    """A count that is free of the classifier's errors beside manual ones."""
    draws = sampled_draws(counts, seed=np.random.default_rng(7))
    return compare_with_manual(np.array(counts) / sum(counts), draws, manual, names=FIVE.names)


# The file


def write(folder, text):
    path = folder / "manual.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.encode("utf-16"),
        "Class , Count\r\nneut,117\r\nLYMPHS,62\r\n\r\nmono, 14 \r\neos,6\r\nbaso,1\r\n",
        b"\xef\xbb\xbf" + GOOD.encode(),
        'class,count\n"Neutrophils","117"\nly,62\nmo,14\neo,6\nba,1',
    ],
)
def test_a_manual_count_is_read_under_any_name(tmp_path, text):
    assert read_manual_count(write(tmp_path, text)) == (1, 6, 62, 14, 117)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n , \n", "is empty"),
        ("class,count\n", "no line for Basophil, Eosinophil, Lymphocyte, Monocyte and Neutrophil"),
        (GOOD.replace("Basophil,1\n", ""), "no line for Basophil; write 0"),
        (GOOD.replace("class,count\n", ""), "must begin with the line 'class,count'"),
        (GOOD.replace("class,count", "class;count"), "received 'class;count'"),
        (GOOD + "neut,3\n", "line 7: Neutrophil comes a second time"),
        (GOOD.replace("Monocyte", "Blast"), "line 5: 'Blast' is no class that is counted"),
        (GOOD.replace("14", "-14"), "count of Monocyte must be a whole number.*received '-14'"),
        (GOOD.replace("14", "14.5"), "received '14.5'"),
        (GOOD.replace("14", ""), "received ''"),
        (GOOD.replace("14", "1e2"), "received '1e2'"),
        (GOOD.replace("14", "²"), "received '²'"),
        (GOOD.replace("14", "9999999"), "from 0 to 1,000,000"),
        (GOOD.replace("14", "9" * 5000), "from 0 to 1,000,000"),
        (GOOD.replace("Monocyte", "M" * 5000), "line 5: 'MMM.*…' is no class"),
        (GOOD.replace("Monocyte,14", "Monocyte,14,3"), "line 5: expected a class and a count"),
        (GOOD.replace("Monocyte,14", "Monocyte"), "line 5: expected a class and a count"),
        (re.sub(r"\d+", "0", GOOD), "counts no cell at all"),
        ("class,count\n1,117\n2,62\n3,14\n4,6\n5,1\n", "line 2: '1' is no class"),
        (b"class,count\n\xff\xfe,1\n", "cannot be read as a CSV"),
        ('class,count\n"Baso"phil,1\n', "cannot be read as a CSV"),
        ("x" * 70_000, "too large for a manual count"),
    ],
)
def test_every_fault_of_the_file_gets_one_sentence(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read_manual_count(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "manual.csv" in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_manual_count_has_the_classes_of_a_scheme(tmp_path):
    scheme = load_scheme("pbc-8")
    text = GOOD + "IG,2\n"
    assert read_manual_count(write(tmp_path, text), scheme) == (1, 6, 0, 2, 62, 14, 117, 0)
    text += "nrbc,4\nplatelets,30\n"
    assert read_manual_count(write(tmp_path, text), scheme) == (1, 6, 4, 2, 62, 14, 117, 30)
    with pytest.raises(DataError, match="no line for Immature granulocyte; write 0"):
        read_manual_count(write(tmp_path, GOOD), scheme)
    nothing = re.sub(r"\d+", "0", GOOD) + "IG,0\nplatelets,30\n"
    with pytest.raises(DataError, match="counts no cell at all"):
        read_manual_count(write(tmp_path, nothing), scheme)


def test_a_file_that_is_not_there_or_a_folder(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_manual_count(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_manual_count(tmp_path)


# The comparison


def test_a_count_without_confusion_is_tested_by_fisher_and_holm():
    ours, theirs = (2, 20, 50, 14, 114), (1, 4, 62, 16, 117)
    result = compare(ours, theirs)
    p = [fisher_p_value(a, 200, b, 200) for a, b in zip(ours, theirs)]
    assert min(p) == p[1] < 0.01
    assert 2 * p[1] < result.p_values[1] < 0.05 < result.p_values[2]
    assert result.differs == (False, True, False, False, False)
    assert result.limits[1] == exact_interval(4, 200)
    assert result.difference[1] == pytest.approx(0.08)
    low, high = result.difference_limits[1]
    assert 0 < low < 0.08 < high
    assert manual_sentences(result)[0] == (
        "This count differs from the manual count of 200 cells by more than the errors of both "
        "allow in Eosinophil (+8.0 points)."
    )


def test_equal_counts_do_not_differ():
    result = compare((1, 6, 62, 14, 117), (1, 6, 62, 14, 117))
    assert result.p_values == (1.0,) * 5
    for low, high in result.difference_limits:
        assert low < 0 < high
    assert manual_sentences(result)[0].startswith("In no class does this count differ")
    assert "400 cells, 200 by each of two observers" in manual_sentences(result)[1]


def test_two_observers_are_added_and_compared_with_each_other():
    result = compare((2, 12, 124, 28, 234), (1, 6, 62, 14, 117), (1, 6, 62, 14, 117))
    assert (result.total, result.observers, result.disagree) == (400, 2, ())
    assert len(manual_sentences(result)) == 1
    apart = compare((2, 12, 124, 28, 234), (1, 6, 32, 14, 147), (1, 6, 92, 14, 87))
    assert apart.counts == result.counts
    assert apart.disagree == ("Lymphocyte", "Neutrophil")
    assert "differ among themselves in Lymphocyte and Neutrophil" in manual_sentences(apart)[1]


def test_melded_limits_of_a_difference_go_with_fishers_test():
    # The one-sided melded test is Fisher's: the 95% limits exclude 0 where that is below 2.5%.
    from scipy.stats import fisher_exact

    for k in (3, 9, 11, 13, 17):
        result = compare((k, 0, 0, 0, 200 - k), (4, 0, 0, 0, 196))
        sides = [fisher_exact([[k, 200 - k], [4, 196]], alternative=side).pvalue
                 for side in ("less", "greater")]  # fmt: skip
        low, high = result.difference_limits[0]
        assert (low > 0 or high < 0) == (min(sides) < 0.025)


@pytest.mark.slow
def test_alarms_for_counts_of_one_blood_are_as_rare_as_said():
    # Rates over 120 samples: the classifier calls every tenth neutrophil an eosinophil.
    rng = np.random.default_rng(0)
    rows = CONFUSION / CONFUSION.sum(axis=1, keepdims=True)
    alarms = {"raw": 0, "corrected": 0}
    for _ in range(120):
        counts, manual = rng.multinomial(500, ADULT @ rows), rng.multinomial(400, ADULT)
        alarms["raw"] += any(compare(counts.tolist(), manual.tolist()).differs)
        table = np.array([rng.multinomial(row.sum(), row / row.sum()) for row in CONFUSION])
        result = compare_with_manual(
            adjust_shares(counts, table).tolist(),
            adjusted_draws(counts, NONE, table, seed=rng, draws=399),
            [manual.tolist()],
            names=FIVE.names,
        )
        alarms["corrected"] += any(result.differs)
    assert alarms["corrected"] / 120 <= 0.05
    assert alarms["raw"] / 120 > 0.5


def test_a_true_difference_is_found_in_a_corrected_count():
    counts = [5, 270, 150, 35, 240]  # more than a third eosinophils, against 3%
    result = compare_with_manual(
        adjust_shares(counts, CONFUSION).tolist(),
        adjusted_draws(counts, NONE, CONFUSION, seed=0),
        [(2, 6, 60, 14, 118), (1, 5, 62, 15, 117)],
        names=FIVE.names,
    )
    assert result.differs[1]
    assert result.counts[1] == 11
    assert result.observers == 2


def test_what_is_not_accepted_may_explain_a_difference():
    """20 of 200 cells more are eosinophils than a person saw, all of them left open."""
    manual = [(1, 6, 62, 14, 117)]
    counts = np.array([1, 26, 62, 14, 97])
    shares = (counts / 200).tolist()
    table = 400 * np.eye(5)
    sure = adjusted_draws(counts, NONE, table, seed=0)
    known = compare_with_manual(shares, sure, manual, names=FIVE.names)
    open_ = np.array([0, 20, 0, 0, 0])
    left = adjusted_draws(counts - open_, open_, table, seed=0)
    result = compare_with_manual(shares, left, manual, names=FIVE.names)
    assert known.differs[1]
    assert result.p_values[1] > known.p_values[1]
    assert result.difference_limits[1][0] < known.difference_limits[1][0]
