"""The page of a run over fields: whole, escaped, within its size, every link with an end."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from five import FIVE
from found_fields import cell, report, truth
from leuko.field.report import Field
from leuko.render.overlay import overlay
from pages import EVIL, Page, check

pytest.importorskip("matplotlib", reason="pages need the extra 'report'")

from leuko.render.field_page import MOST_CROPS, field_html

CROP = np.full((40, 40, 3), 90, np.uint8)


def drawn_of(run):
    """A drawing of every picture that could be read."""

    def drawn(place):
        one = run.fields[place]
        if not one.size[0]:
            return None
        return overlay(np.full((*one.size, 3), 220, np.uint8), one, FIVE)

    return drawn


def page_of(run, **changes):
    given = {"crop": lambda number: CROP, "drawn": drawn_of(run), **changes}
    return field_html(run, **given)


@pytest.fixture(scope="module")
def text():
    return page_of(report(truth=truth()), context={"command": "leuko field slide --out run"})


def test_it_is_a_whole_page_that_says_what_may_be_believed(text):
    words = check(text).words
    assert "<h1>4 white cells counted in 3 fields</h1>" in text
    for part in (
        "The model accepts 3 of 4 cells (75.0%)",
        "7 pictures: 2 with white cells",
        "Set aside: 1 cut by the picture's border.",
        "MONO or BASO?",
        "62.0%, accepted from 93.0% on",
        "the same cell as slide/a.jpg",
        "from 57 red cells",
        "tile 3, 4 is damaged",
        "cannot be read (truncated): The JPEG file ends too early",
        "leuko field slide --out run",
        "default " + "ef" * 32,
        "learned " + "12" * 32,
    ):
        assert part in words
    assert "<summary>How it was made</summary>" in text
    assert 'style="background:#e4dce2"' in text


def test_the_differential_stands_as_a_table_with_its_limits(text):
    run = report()
    for number, row in enumerate(run.differential.rows):
        line = re.search(rf"var\(--class-{number}\)\"></span>{row.name}</th>.*", text)[0]
        assert f"<strong>{100 * row.share:.1f}</strong>" in line
        assert f"{100 * row.low:.1f} to {100 * row.high:.1f}" in line
        low, high = (f"{end:g}" for end in row.reference)
        assert f"{low}–{high}" in line
        assert f'class="span" style="left:{100 * row.low:.2f}%' in line or row.low > 0


def test_a_cell_leads_to_its_place_and_back(text):
    page = Page(text)
    links = [value for name, value in page.attributes if name == "href"]
    for number in range(1, 7):
        assert f"p{number}" in page.ids
        assert f"c{number}" in page.ids
        assert f"#p{number}" in links
        assert f"#c{number}" in links
    # Cell 2: rows 100 to 150 of 300, columns 100 to 150 of 400; below the field is its legend.
    style = re.search(r'id="p2" href="#c2" style="([^"]*)"', text)[1]
    top, height, left, width = (float(one) for one in re.findall(r"[\d.]+", style))
    rows = overlay(np.zeros((300, 400, 3), np.uint8), report().fields[0], FIVE).shape[0]
    assert (left, width) == (25.0, 12.5)
    assert top == pytest.approx(100 * 250 / rows, abs=0.01)
    assert height == pytest.approx(100 * 125 / rows, abs=0.01)


def test_the_most_doubtful_stand_first():
    sure = [cell((9 * k, 0, 9 * k + 8, 8), share=round(0.95 + k / 100, 2)) for k in range(3)]
    doubted = cell((90, 0, 98, 8), share=0.99, decision="unsure", reason="blurred")
    one = Field("a.jpg", "ok", size=(300, 400), cells=(sure[1], sure[2], sure[0], doubted))
    asked = []
    field_html(report(fields=(one,)), crop=asked.append, drawn=lambda place: None)
    assert asked == [4, 3, 1, 2]


def test_how_well_has_numbers_slides_misses_and_false_finds(text):
    words = Page(text).words
    assert "80.0% found 4 of 5 given" in words
    assert "Of the cells found, 75.0% are named rightly (balanced 50.0%)" in words
    assert "slide 5 80.0% 80.0% 0.800 75.0% 0.67" in words
    assert 'id="m1" href="#x1"' in text
    assert 'id="x1"' in text
    assert "1 missed (dotted)" in words
    part = text[text.index("Found where no box was given") : text.index('id="pictures"')]
    assert 'href="#p6"' in part
    assert "How well" not in page_of(report())


def test_a_large_run_has_its_most_doubtful_cells_and_says_what_is_left_out():
    many = [Field(f"{k}.jpg", "ok", size=(300, 400), cells=tuple(
        cell((5 * n, 5 * n, 5 * n + 4, 5 * n + 4), ("Neutrophil", "Monocyte")[k == 0])
        for n in range(10))) for k in range(60)]  # fmt: skip
    asked, drawn = [], []
    run = report(fields=tuple(many))
    text = field_html(run, crop=lambda number: asked.append(number) or CROP,
                      drawn=lambda place: drawn.append(place))  # fmt: skip
    page = check(text)
    assert len(asked) == len({*asked}) == MOST_CROPS
    assert {*range(1, 11)} <= {*asked}  # a small class is whole
    assert len(drawn) == len({*drawn}) == 40
    assert "590 cells, 590 accepted; the 390 most doubtful are shown" in page.words
    assert "200 more stand in cells.csv" in page.words
    assert text.count("data:image/jpeg;base64,") == MOST_CROPS
    assert 'href="#f0"' in text  # without a drawing, to its line in the table


def test_pictures_are_made_small():
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1600, 3), np.uint8)
    text = page_of(report(), crop=lambda number: noise, drawn=lambda place: noise)
    sizes = [len(one) for one in re.findall(r"data:image/jpeg;base64,([^\"]*)", text)]
    assert len(sizes) == 6 + 7
    assert max(sizes[:6]) < 30_000


def test_a_count_that_is_refused_shows_no_percentages():
    run = report()
    refused = replace(run.differential, refused="few-accepted")
    text = page_of(replace(run, differential=refused))
    assert "4 white cells in 3 fields, and no count to rely on" in check(text).words
    assert "This model cannot count this microscope" in text
    part = text[text.index('id="differential"') : text.index('id="cells"')]
    assert "limits</th>" not in part
    assert "Reference ranges" not in part


def test_without_cells_it_says_so_and_counts_nothing():
    empty = report(fields=(Field("c.jpg", "no-cell", size=(300, 400)),), differential=None)
    page = check(page_of(empty))
    assert "No white cell in 1 field" in page.words
    assert "Differential" not in page.words
    bad = report(fields=(Field("c.jpg", "rejected", "corrupt"),), differential=None)
    assert "No picture can be counted" in check(page_of(bad)).words


def test_hostile_names_stay_text():
    run = report(truth=truth())
    bad = tuple(
        replace(one, name=one.name + EVIL, detail=EVIL, faults=(EVIL,)) for one in run.fields
    )
    misses = tuple(replace(one, picture=one.picture + EVIL) for one in run.truth.misses)
    hostile = replace(run, fields=bad, truth=replace(run.truth, misses=misses),
                      model={"name": EVIL, "digest": EVIL})  # fmt: skip
    text = page_of(hostile, context={"command": EVIL})
    check(text)
    assert "&lt;script&gt;" in text


def test_equal_runs_give_equal_pages(text):
    again = page_of(report(truth=truth()), context={"command": "leuko field slide --out run"})
    assert again == text
