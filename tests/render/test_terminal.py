"""A comparison on a terminal: plain, aligned, and true to its document."""

from __future__ import annotations

import copy

from leuko.render.terminal import comparison_text


def block(text, title):
    """The lines of one table, below its title."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    return lines[start : lines.index("", start)]


def test_no_markup_and_no_long_line(comparison):
    text = comparison_text(comparison)
    for mark in ("\\", "&lt;", "|", "**", "# "):
        assert mark not in text
    assert max(len(line) for line in text.splitlines()[:-1]) <= 112
    assert text.splitlines()[0] == (
        "The data do not separate Custom CNN, corrected from MobileNetV2, frozen"
    )
    assert text.splitlines()[-1] == comparison["research_use"]


def test_a_set_is_a_table_with_its_baseline(comparison):
    changed = copy.deepcopy(comparison)
    changed["models"][0]["mean"]["test"] = {
        "accuracy": {"mean": 0.12345, "sd": 0.0111, "low": 0.1131, "high": 0.1372, "method": "x"},
        "balanced_accuracy": {"mean": 0.2222, "sd": None, "low": None, "high": None, "method": "x"},
        "macro_f1": {"mean": 0.3339, "sd": 0.002, "low": 0.3013, "high": 0.3502, "method": "x"},
    }
    title, head, first, second, last = block(comparison_text(changed), "Test: ")
    assert title == "Test: 500 images, 12 slides"
    assert head.split() == ["accuracy", "[95%", "interval]", "balanced", "macro-F1", "published"]
    assert first.split("  ")[1:2] == ["Custom CNN, corrected"]
    told = "12.3% ± 1.1 [11.3–13.7] 22.2% 0.334 ± 0.002 93.2% / 0.865"
    assert " ".join(first.split()).endswith(told)
    assert last.split()[:2] == ["Always", "“Neutrophil”"]
    assert last.split()[3:] == ["20.0%", "0.152"]
    # Columns end below each other.
    ends = [line.index(value) + len(value) for line, value in
            ((head, "macro-F1"), (first, "0.334 ± 0.002"), (last, "0.152"))]  # fmt: skip
    assert len(set(ends)) == 1


def test_a_baseline_of_several_classes_names_them_beside(comparison):
    changed = copy.deepcopy(comparison)
    one = changed["models"][1]["runs"][1]["evaluations"]["validation"]["baselines"]["majority"]
    one.update({"class": "Lymphocyte", "accuracy": 0.3})
    last = block(comparison_text(changed), "Validation: ")[-1]
    assert " ".join(last.split()).startswith("Always the commonest class 30.0–56.7% 20.0% ")
    assert last.endswith("  “Neutrophil” or “Lymphocyte”")


def test_doubts_stand_beside_the_figures(comparison):
    changed = copy.deepcopy(comparison)
    changed["models"][0]["split"] = "random-file"
    for run in changed["models"][1]["runs"]:
        run["evaluations"]["test"]["n_slides"] = 3
    text = comparison_text(changed)
    assert block(text, "Test: ")[3].endswith("  rough: 3 slides")
    assert block(text, "Validation: ")[2].endswith("  inflated: siblings were trained on")
    assert block(text, "Unseen: jtsc: ")[2].endswith("  too narrow: over images")


def test_the_verdict_the_warnings_and_the_cost_follow(comparison):
    text = comparison_text(comparison)
    flat = " ".join(text.replace("\n- ", "\n").split())
    assert comparison["verdict"] in flat
    assert "\n! Warning: One image of Train could not be read and was left out.\n" in text
    assert "! The background gives classes away: A classifier that sees only the outer" in flat
    assert block(text, "Cost")[1].split() == ["training", "images/s", "parameters", "size"]
    assert block(text, "Cost")[2].split()[-5:] == ["min", "512", "87,245", "371", "kB"]


def test_what_is_missing_is_left_out(comparison):
    bare = copy.deepcopy(comparison)
    bare.update(audit=None, balance=None, paired=[], warnings=None, machine=None, verdict=None)
    (model,) = bare["models"] = bare["models"][:1]
    model.update(title="A title that is as long\nas nobody would make it, or so", published=None,
                 history=[], parameters=None, bundle_bytes=None)  # fmt: skip
    model["mean"].pop("test")
    for run in model["runs"]:
        run.update(seconds={}, predict_images_per_second=None)
        run["evaluations"].pop("test")
    text = comparison_text(bare)
    assert block(text, "Validation: ")[2].startswith("  A title that is as long as nobody w…  ")
    assert block(text, "Cost")[2].split()[-4:] == ["–"] * 4
    assert "published" not in text
