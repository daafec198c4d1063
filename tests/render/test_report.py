"""Pages: whole, self-contained, escaped, and true to their documents."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

from leuko.errors import DataError
from leuko.imaging.decode import encode_jpeg
from leuko.render.report import (
    audit_html,
    comparison_html,
    comparison_markdown,
    evaluation_html,
    worst_mistakes,
)
from leuko.render.terminal import comparison_text
from pages import EVIL, Page, check

pytest.importorskip("matplotlib", reason="pages need the extra 'report'")


@pytest.fixture(scope="module")
def page(comparison):
    return comparison_html(comparison)


def rows_of(document):
    """The cells of the headline table, row by row."""
    lines = [line for line in comparison_markdown(document).splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return rows[2 : 3 + len(document["models"])]


def headline(document):
    return comparison_markdown(document).splitlines()[0]


@pytest.mark.slow
def test_the_comparison_is_a_whole_page(page, comparison):
    words = check(page).words
    assert page.count("<svg") == 4 + 3 + 2 * (1 + 6 + 2 * 2)
    for sentence in comparison["audit"]["findings"][:2]:
        assert sentence["title"] in words
    assert comparison["command"] in words
    assert comparison["data_digest"] in words
    assert "Some CPU" in words
    assert "keras 3.15.1" in words
    assert "Seeds 0, 1" in words
    for part in ("9.1 MB", "371 kB", "93.2% / 0.865", "majority baseline", "31,155 images"):
        assert part in words


def test_the_headline_table_is_the_documents(comparison):
    changed = copy.deepcopy(comparison)
    model = changed["models"][0]
    model["mean"]["test"] = {
        "accuracy": {"mean": 0.12345, "sd": 0.0111, "low": 0.1131, "high": 0.1372},
        "balanced_accuracy": {"mean": 0.2222, "sd": None, "low": None, "high": None},
        "macro_f1": {"mean": 0.3339, "sd": 0.002, "low": 0.3013, "high": 0.3502},
    }
    model["mean"]["validation"]["accuracy"] = {"mean": 0.4567, "sd": None, "low": 0.41, "high": 0.5}
    model["mean"]["jtsc"]["balanced_accuracy"] = {"mean": 0.0789, "sd": 0, "low": None, "high": 1}
    model["parameters"], model["bundle_bytes"] = 987654, 5_430_000
    model["published"] = {"accuracy": 0.9876, "macro_f1": 0.8765}
    for run in model["runs"]:
        run["seconds"]["total"], run["predict_images_per_second"] = 600.0, 1234.4
    balanced = model["mean"]["validation"]["balanced_accuracy"]["mean"]
    cells = rows_of(changed)[0]
    assert cells == [
        "Custom CNN, corrected",
        "12.3% ± 1.1 \\[11.3–13.7\\]",
        "22.2%",
        "0.334 ± 0.002 \\[0.301–0.350\\]",
        "98.8% / 0.876",
        f"45.7% \\[41.0–50.0\\] balanced {100 * balanced:.1f}%",
        cells[6],
        "10.0 min",
        "1,234",
        "987,654 5.4 MB",
    ]  # fmt: skip
    assert cells[6].endswith("balanced 7.9%")


def test_the_majority_row_is_that_of_a_constant_answer(comparison):
    report_of_test = comparison["models"][0]["runs"][0]["evaluations"]["test"]
    counts = np.array(report_of_test["confusion"]).sum(axis=1)
    share = counts.max() / counts.sum()
    precision, recall = share, 1.0
    macro = 2 * precision * recall / (precision + recall) / 5
    cells = rows_of(comparison)[-1]
    assert cells[1:4] == [f"{100 * share:.1f}%", "20.0%", f"{macro:.3f}"]


def of_set(document, name):
    """Every evaluation on a set, seed by seed and model by model."""
    return [
        run["evaluations"][name] for run in zip(*(m["runs"] for m in document["models"]))
        for run in run
    ]  # fmt: skip


@pytest.mark.slow
def test_the_majority_row_names_the_class_of_each_set(comparison):
    assert rows_of(comparison)[-1][0] == "Always “Neutrophil”"
    changed = copy.deepcopy(comparison)
    for one in of_set(changed, "jtsc"):
        one["baselines"]["majority"] = {"class": "Lymphocyte", "accuracy": 0.37}
    cells = rows_of(changed)[-1]
    assert cells[0] == "Always the commonest class"
    assert cells[1].endswith("% always “Neutrophil”")
    assert cells[5].endswith("% always “Neutrophil”")
    assert cells[6] == "37.0% always “Lymphocyte”"
    assert "Always the commonest class" in check(comparison_html(changed)).words


def test_every_seed_has_a_validation_set_of_its_own(comparison):
    changed = copy.deepcopy(comparison)
    for one in of_set(changed, "validation")[2:]:
        one.update(n=43, n_slides=5)
        one["data"] = {"digest": "other"}
        one["baselines"]["majority"] = {"class": "Lymphocyte", "accuracy": 0.311}
    told = comparison_markdown(changed)
    assert (
        "- Validation: 43 to 420 images, 5 to 12 slides (they differ by seed or recipe), rows of"
    ) in told
    assert "- Test: 500 images, 12 slides, nothing is chosen on it." in told
    share = of_set(changed, "validation")[0]["baselines"]["majority"]["accuracy"]
    cell = rows_of(changed)[-1][5]
    assert cell == f"31.1–{100 * share:.1f}% always “Neutrophil” or “Lymphocyte”"
    assert "(they differ" not in comparison_markdown(comparison)


def test_an_interval_over_few_slides_is_called_rough_in_the_table(comparison):
    changed = copy.deepcopy(comparison)
    for one, slides in zip(of_set(changed, "test"), (3, 12, 4, 12), strict=True):
        one["n_slides"] = slides
    first, second, _ = rows_of(changed)
    assert first[1].endswith("\\], rough: 3 to 4 slides")
    assert second[1].endswith("\\]")
    assert "], too narrow: over images; balanced " in first[6].replace("\\", "")


def test_warnings_stand_below_the_table(comparison):
    told = comparison_markdown(comparison)
    (warning,) = comparison["warnings"]
    assert told.count(warning) == 1
    assert told.index(f"- Warning: {warning}") < told.index("## Paired tests")


def test_a_winner_is_named_only_where_the_tests_agree(comparison):
    clear = copy.deepcopy(comparison)
    for one in clear["paired"]:
        one["mcnemar"].update(b=40, c=10, p_value=0.0001)
        one["bootstrap"]["accuracy"] = {"difference": 0.0625, "low": 0.02, "high": 0.08}
    assert (
        headline(clear) == "# Custom CNN, corrected beats MobileNetV2, frozen by 6.2 points on test"
    )
    for one in clear["paired"]:
        one["mcnemar"]["p_value"] = 0.5
    assert headline(clear).startswith("# The data do not separate")


@pytest.mark.slow
def test_what_a_model_starts_from_stands_in_headline_table_and_terminal(comparison):
    started = copy.deepcopy(comparison)
    seen = {"train": [200, 200], "test": [0, 50], "jtsc": [1, 300]}
    started["models"][0]["start"] = {"told": "random weights"}
    started["models"][1]["start"] = {"told": "Leuko's backbone", "seen": seen}
    told = "200 of 200 images of train and 1 of 300 images of jtsc are among them"
    assert headline(started).endswith(f"; MobileNetV2, frozen starts from Leuko's backbone: {told}")
    assert "Custom CNN, corrected start" not in headline(started)
    rows = rows_of(started)
    assert [row[1] for row in rows] == ["random weights", f"Leuko's backbone {told}", "–"]
    both = f"starts from Leuko's backbone: {told}"
    assert len({len(row) for row in rows}) == 1
    page = check(comparison_html(started)).words
    assert "Starts from" in page
    assert told in page
    assert f"frozen {both}." in " ".join(comparison_text(started).split())
    started["models"][0]["start"] = {"told": "Leuko's backbone", "seen": seen}
    assert "Custom CNN, corrected and MobileNetV2, frozen start from Leuko's" in headline(started)
    assert "Starts from" not in comparison_markdown(comparison)  # of an earlier version


def test_an_inflated_validation_is_marked(comparison):
    changed = copy.deepcopy(comparison)
    changed["models"][0]["split"] = "random-file"
    changed["models"][0]["published"]["validation_accuracy"] = 0.963
    words = comparison_markdown(changed)
    assert "inflated: siblings of these images were trained on" in words
    assert "published 96.3%" in words


def test_evaluation_page(evaluation):
    words = check(evaluation_html(evaluation)).words
    for name in ("accuracy", "balanced_accuracy"):
        assert f"{100 * evaluation['metrics'][name]['value']:.1f}%" in words
    assert evaluation["command"] in words
    assert evaluation["worst"][0]["path"] in words
    assert f"always answering {evaluation['baselines']['majority']['class']}" in words


def test_audit_page(audit):
    words = check(audit_html(audit)).words
    for finding in audit["findings"]:
        assert finding["sentence"] in words
    for part in ("Train/Monocyte/a.jpg", "Train/Monocyte/b.jpg = Train/Monocyte/c.jpg", "575x575"):
        assert part in words


@pytest.mark.slow
def test_pages_are_the_same_each_time(audit):
    assert audit_html(audit) == audit_html(copy.deepcopy(audit))


def poison(value, keys=()):
    """Put hostile text wherever a document has text that comes from files or users."""
    if isinstance(value, dict):
        return {k: poison(v, (*keys, k)) for k, v in value.items()}
    if isinstance(value, list):
        return [poison(one, keys) for one in value]
    free = "path title sentence detail reason folder command dataset slide names verdict"
    free += " duplicates near_duplicates processor digest run"
    return value + EVIL if isinstance(value, str) and keys and keys[-1] in free.split() else value


@pytest.mark.slow
def test_hostile_names_stay_text(comparison, audit, evaluation):
    audit = poison(audit)
    audit["slides"] = {s: {n + EVIL: c for n, c in t.items()} for s, t in audit["slides"].items()}
    text = audit_html(audit)
    check(text)
    assert "&lt;script&gt;" in text
    check(evaluation_html(poison(evaluation)))


@pytest.mark.slow
def test_hostile_names_stay_text_in_a_comparison(comparison):
    poisoned = poison(comparison)
    poisoned["audit"] = None
    poisoned["models"], poisoned["paired"] = poisoned["models"][:1], []
    for model in poisoned["models"]:
        model["runs"] = model["runs"][:1]
        for run in model["runs"]:
            run["evaluations"] = {
                "test": run["evaluations"]["test"],
                EVIL: run["evaluations"]["jtsc"],
            }
        model["mean"] = {"test": model["mean"]["test"], EVIL: model["mean"]["jtsc"]}
    check(comparison_html(poisoned))
    text = comparison_markdown(poisoned)
    assert "<script" not in text
    widths = {
        len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")
    }
    assert len(widths) <= 2


@pytest.mark.slow
def test_what_is_missing_is_left_out(comparison):
    bare = copy.deepcopy(comparison)
    bare.update(audit=None, balance=None, paired=[], warnings=None, machine=None, verdict=None)
    bare["models"] = bare["models"][:1]
    for model in bare["models"]:
        model.update(published=None, history=[], input=None, parameters=None, bundle_bytes=None)
        model["mean"].pop("test")
        for run in model["runs"]:
            run.update(seconds={}, predict_images_per_second=None, epochs=None)
            run["evaluations"].pop("test")
    assert "validation" in Page(comparison_html(bare)).words
    assert "Validation accuracy" in comparison_markdown(bare)
    with pytest.raises(DataError, match="no model"):
        comparison_html({"models": []})


def test_markdown_has_the_same_table(comparison):
    text = comparison_markdown(comparison)
    one = comparison["models"][1]["mean"]["test"]["accuracy"]
    assert f"{100 * one['mean']:.1f}% ± {100 * one['sd']:.1f}" in text
    assert "Always “Neutrophil”" in text
    assert comparison["data_digest"] in text
    assert "Research use only." in text
    assert text == comparison_markdown(copy.deepcopy(comparison))


@pytest.mark.slow
def test_worst_mistakes_are_read_from_the_folder(tmp_path, evaluation):
    first, second = evaluation["worst"][:2]
    file = tmp_path / first["path"]
    file.parent.mkdir(parents=True)
    file.write_bytes(encode_jpeg(np.full((60, 90, 3), 200, np.uint8)))
    listed = dict(evaluation, worst=[first, second, dict(first, path="../outside.jpg")])
    (tmp_path.parent / "outside.jpg").write_bytes(file.read_bytes())
    found = worst_mistakes(listed, tmp_path)
    assert [bool(one.jpeg) for one in found] == [True, False, False]
    assert found[1].reason == "unreadable"
    text = evaluation_html(listed, mistakes=found)
    assert text.count("data:image/jpeg;base64,") == 1
    assert text.count("no picture: unreadable") == 2
