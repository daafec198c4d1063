"""``leuko count``: the table, the document, and a sentence for every fault."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leuko.bundle import ModelBundle
from leuko.data.synth import SmearPlan, draw_dataset
from leuko.prediction import Prediction, PredictionTable
from leuko.prediction_files import read_predictions, write_csv, write_parquet
from leuko.scheme import load_scheme
from leuko.support.artifacts import finite
from tiny import write_picture

Leuko = Callable[..., Any]

CLASSES = load_scheme("differential-5").names
COUNTS = (1, 2, 6, 2, 9)
MANUAL = "class,count\nbaso,2\neos,6\nlymph,62\nmono,14\nneut,116\n"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures and a broken one."""
    folder = tmp_path_factory.mktemp("cells")
    for name, count in zip(CLASSES, COUNTS):
        for number in range(count):
            write_picture(folder / f"{name}{number}.png", name, seed=number)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return folder


@pytest.fixture(scope="module")
def validated(tiny_bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a validation of its own."""
    confusion = (90 * np.eye(5) + 2).astype(int).tolist()
    bundle = replace(tiny_bundle, validation={"split": "slide", "n": 500, "confusion": confusion})
    path = tmp_path_factory.mktemp("model") / "validated.zip"
    bundle.save(path)
    return path


@pytest.fixture
def manual(tmp_path: Path) -> Path:
    path = tmp_path / "manual.csv"
    path.write_text(MANUAL)
    return path


def test_the_table_on_a_terminal(cells: Path, validated: Path, manual: Path, leuko: Leuko) -> None:
    done = leuko("count", cells, "--model", validated, "--manual", manual)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "The model accepts 20 of 20 cells (100.0%)."
    assert [line.split()[:3] for line in lines[3:8]] == [
        [name, str(count), "0"] for name, count in zip(CLASSES, COUNTS)
    ]
    assert max(map(len, lines)) <= 80
    assert "not decided at this n" in done.out
    text = " ".join(done.out.split())
    assert "Not counted, of 21 images: 1 rejected (" in text
    assert "In no class does this count differ from the manual count of 200 cells" in text
    assert "Research use only." in text
    assert "Rejected" in done.err


def test_the_json_document(cells: Path, validated: Path, manual: Path, leuko: Leuko) -> None:
    other = manual.with_name("other.csv")
    other.write_text("".join(MANUAL.splitlines(True)[:1] + MANUAL.splitlines(True)[:0:-1]))
    arguments = ("count", cells, "-m", validated, "--manual", manual, "--manual", other, "--json")
    done = leuko(*arguments)
    document = json.loads(done.out)
    assert document["schema"] == "leuko.count/2"
    assert document["refused"] is None
    assert [document["classes"][name]["accepted"] for name in CLASSES] == list(COUNTS)
    assert document["manual"]["n"] == 400
    assert document["manual"]["observers"] == 2
    assert document["model"]["answered"] == [document["model"]["digest"][:12]]
    assert document["command"].startswith("leuko count")
    assert leuko(*arguments).out == done.out
    assert json.loads(leuko(*arguments, "--seed", "1").out) != document


def test_predictions_are_counted_as_the_images_are(
    cells: Path, validated: Path, tmp_path: Path, leuko: Leuko
) -> None:
    leuko("predict", cells, "-m", validated, "--csv", tmp_path / "p.csv")
    first = json.loads(leuko("count", cells, "-m", validated, "--json").out)
    then = json.loads(
        leuko("count", "--predictions", tmp_path / "p.csv", "-m", validated, "--json").out
    )
    assert then["classes"] == first["classes"]
    assert then["rejected"] == first["rejected"]


def test_what_is_given_twice_is_counted_once(
    cells: Path, validated: Path, manual: Path, tmp_path: Path, leuko: Leuko
) -> None:
    once = json.loads(leuko("count", cells, "-m", validated, "--json").out)
    twice = json.loads(leuko("count", cells, cells, "-m", validated, "--json").out)
    assert twice["classes"] == once["classes"]
    assert (twice["found"], twice["cells"], twice["repeated"]) == (42, 20, 20)
    assert "20 repeated" in twice["sentences"][1]
    table = tmp_path / "p.csv"
    leuko("predict", cells, "-m", validated, "--csv", table)
    header, *lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join([header, *lines, *lines]))
    again = json.loads(leuko("count", "--predictions", table, "-m", validated, "--json").out)
    assert again["classes"] == once["classes"]
    assert again["repeated"] == 20

    copy = tmp_path / "copy.csv"
    copy.write_text(MANUAL)
    for second in (manual, copy):
        done = leuko("count", cells, "-m", validated, "--manual", manual, "--manual", second)
        assert (done.code, done.out) == (1, "")
        assert "has the same content as" in done.err
        assert "observer once" in done.err


def test_predictions_may_be_any_file_of_answers(
    cells: Path, validated: Path, tmp_path: Path, leuko: Leuko
) -> None:
    """The content tells what it is and of which version, not the name."""
    pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")
    table = tmp_path / "p.csv"
    leuko("predict", cells, "-m", validated, "--csv", table)
    answers = read_predictions(table)
    write_parquet(answers, tmp_path / "parquet.dat")
    (tmp_path / "json.dat").write_text(json.dumps(finite(answers.to_dict())))
    lines = [line.rpartition(",")[0] for line in table.read_text().splitlines()]
    (tmp_path / "old.dat").write_text("\n".join(lines) + "\n")  # version 1, all being accepted
    first = json.loads(leuko("count", "--predictions", table, "-m", validated, "--json").out)
    for name in ("parquet.dat", "json.dat", "old.dat"):
        done = leuko("count", "--predictions", tmp_path / name, "-m", validated, "--json")
        then = json.loads(done.out)
        assert then["classes"] == first["classes"]
        assert then["rejected"] == first["rejected"]


def test_a_decision_that_is_none_is_refused(
    cells: Path, validated: Path, tmp_path: Path, leuko: Leuko
) -> None:
    table = tmp_path / "p.csv"
    leuko("predict", cells, "-m", validated, "--csv", table)
    table.write_text(table.read_text().replace(",class,", ",sure,", 1))
    done = leuko("count", "--predictions", table, "-m", validated)
    assert (done.code, done.out) == (1, "")
    assert "'sure'" in done.err


def test_the_csv(cells: Path, validated: Path, tmp_path: Path, leuko: Leuko) -> None:
    done = leuko("count", cells, "-m", validated, "--csv", tmp_path / "new" / "count.csv")
    assert done.code == 0
    with (tmp_path / "new" / "count.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["accepted"]) for row in rows] == list(COUNTS)
    assert {row["refused"] for row in rows} == {""}


def test_all_limits_may_hold_at_once(cells: Path, validated: Path, leuko: Leuko) -> None:
    document = json.loads(leuko("count", cells, "-m", validated, "--json", "--simultaneous").out)
    assert document["simultaneous"] is True
    assert sum(one["percent"] for one in document["classes"].values()) == pytest.approx(100)


def test_a_model_that_accepts_few_cells_cannot_count(
    cells: Path, validated: Path, manual: Path, tmp_path: Path, leuko: Leuko
) -> None:
    table = tmp_path / "p.csv"
    leuko("predict", cells, "-m", validated, "--csv", table)
    rows = read_predictions(table).rows
    doubted = [replace(row, decision="unsure", reason="low-confidence")
               if row.status == "ok" and number % 2 else row
               for number, row in enumerate(rows)]  # fmt: skip
    write_csv(PredictionTable(tuple(doubted)), table)
    arguments = ("count", "--predictions", table, "-m", validated, "--manual", manual)
    done = leuko(*arguments)
    assert done.code == 0
    assert done.out.startswith("This model cannot count this microscope: it accepts ")
    assert "leuko adapt" in done.out
    assert "95% limits" not in done.out
    assert "In no class" not in done.out
    document = json.loads(leuko(*arguments, "--json").out)
    assert (document["refused"], document["manual"]) == ("few-accepted", None)
    assert {one["low"] for one in document["classes"].values()} == {None}


def test_a_model_without_confusion_gives_no_limits(
    cells: Path, tiny_model: Path, leuko: Leuko
) -> None:
    done = leuko("count", cells, "-m", tiny_model)
    assert done.code == 0
    text = " ".join(done.out.split())
    assert text.startswith("How often this model is wrong was never measured")
    assert "imported models have none" in text
    assert "limits reference" not in text


def test_answers_of_another_model_are_not_counted(
    cells: Path, validated: Path, tmp_path: Path, leuko: Leuko
) -> None:
    table = tmp_path / "p.csv"
    leuko("predict", cells, "-m", validated, "--csv", table)
    rows = read_predictions(table).rows
    write_csv(PredictionTable(tuple(replace(row, model="feedfeedfeed") for row in rows)), table)
    done = leuko("count", "--predictions", table, "-m", validated)
    assert (done.code, done.out) == (1, "")
    assert "made by the model feedfeedfeed, not by tiny" in done.err


def test_answers_among_other_classes_are_not_counted(
    validated: Path, tmp_path: Path, leuko: Leuko
) -> None:
    scheme = load_scheme("pbc-8")
    row = Prediction.answered("a.png", np.eye(8)[2], "", "", scheme=scheme)
    table = tmp_path / "p.json"
    table.write_text(json.dumps(finite(PredictionTable((row,), scheme).to_dict())))
    done = leuko("count", "--predictions", table, "-m", validated)
    assert (done.code, done.out) == (1, "")
    assert "is among the classes Basophil, Eosinophil, Erythroblast" in done.err


def test_strict_and_quiet(cells: Path, validated: Path, leuko: Leuko) -> None:
    done = leuko("count", cells, "-m", validated, "--strict", "--quiet")
    assert done.code == 3
    assert done.err == ""
    assert "20 of 20 cells" in done.out
    assert leuko("count", cells / "Basophil0.png", "-m", validated, "--strict").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["count"], 2, "Give images, or --predictions"),
        (["count", "{cells}", "--predictions", "{cells}/x.csv"], 2, "Give images, or --pred"),
        (["count", "{cells}", "--width", "0"], 2, "width"),
        (["count", "{missing}", "-m", "{model}"], 1, "does not exist"),
        (["count", "{cells}", "-m", "./nothing"], 1, "There is no model at ./nothing"),
        (["count", "{cells}", "-m", "{model}", "--manual", "{missing}"], 1, "cannot be read"),
        (["count", "{cells}", "-m", "{model}", "--manual", "{bad}"], 1, "no line for Monocyte"),
        (["count", "--predictions", "{bad}", "-m", "{model}"], 1, "lacks the columns"),
        (["count", "{cells}/broken.png", "-m", "{model}"], 1, "Not one of 1 images shows a cell"),
        (["count", "{cells}", "-m", "{model}", "--csv", "{cells}"], 2, "is an input of this"),
    ],
)
@pytest.mark.parametrize("json_too", [False, True])
def test_errors(
    arguments: list[str],
    code: int,
    message: str,
    json_too: bool,
    cells: Path,
    validated: Path,
    tmp_path: Path,
    leuko: Leuko,
) -> None:
    (tmp_path / "bad.csv").write_text(MANUAL.replace("mono,14\n", ""))
    places = {"cells": cells, "model": validated, "missing": tmp_path / "none",
              "bad": tmp_path / "bad.csv"}  # fmt: skip
    done = leuko(*(one.format(**places) for one in arguments), *(["--json"] if json_too else []))
    assert done.code == code
    assert done.out == ""
    assert message in done.err
    if code == 1:
        assert sum(line.startswith("Error: ") for line in done.err.splitlines()) == 1


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty drawn cells in one folder."""
    root = tmp_path_factory.mktemp("drawn")
    draw_dataset(root / "set", SmearPlan(train=15, test=40), workers=2)
    for file in sorted((root / "set" / "Test").glob("*/*.jpg")):
        (root / "cells").mkdir(exist_ok=True)
        shutil.copy(file, root / "cells")
    return root / "cells"


def add_thumbnails(cells: Path) -> None:
    """As a Synology drive puts beside every picture."""
    for file in sorted(cells.glob("*.jpg")):
        place = cells / "@eaDir" / file.name
        place.mkdir(parents=True)
        for side, name in ((320, "M"), (120, "S"), (1280, "XL")):
            with Image.open(file) as image:
                image.thumbnail((side, side))
                image.save(place / f"SYNOFILE_THUMB_{name}.jpg", quality=80)


@pytest.mark.slow
def test_a_cell_is_counted_once(drawn: Path, tmp_path: Path, leuko: Leuko) -> None:
    alone = json.loads(leuko("count", drawn, "--json").out)
    assert (alone["found"], alone["repeated"]) == (40, 0)
    assert alone["accepted"] > 20
    cells = tmp_path / "cells"
    shutil.copytree(drawn, cells)
    add_thumbnails(cells)
    leuko("predict", cells, "--picture", cells / "sheet.png", "--csv", tmp_path / "p.csv")
    done = leuko("count", cells, "--json")
    document = json.loads(done.out)
    assert (document["classes"], document["found"]) == (alone["classes"], 40)
    assert done.err.splitlines()[-1] == (
        "Passed over, as no pictures of cells: 1 x @eaDir, a NAS's thumbnails; 1 x pictures that "
        "Leuko drew."
    )


@pytest.mark.slow
def test_copies_in_other_bytes_are_counted_once(drawn: Path, tmp_path: Path, leuko: Leuko) -> None:
    cells = tmp_path / "cells"
    cells.mkdir()
    files = [Path(shutil.copy(file, cells)) for file in sorted(drawn.glob("*.jpg"))[::4]]
    alone = json.loads(leuko("count", cells, "--json").out)
    for number, file in enumerate(files):
        with Image.open(file) as image:
            image.save(cells / f"{file.stem}.tif")
            image.resize((160, 160)).save(cells / f"z{number}.jpg", quality=50)
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(cells / f"z{number}.png")
    once = json.loads(leuko("count", cells, "--json").out)
    assert (once["classes"], once["found"], once["repeated"]) == (alone["classes"], 40, 30)
    assert "30 repeated (the same cell as an earlier one)" in once["sentences"][1]
    table, other = tmp_path / "p.csv", tmp_path / "q.csv"
    leuko("predict", cells, "--csv", table)
    leuko("predict", cells, "--engine", "processes", "--workers", "2", "--out", other)
    assert table.read_bytes() == other.read_bytes()
    again = json.loads(leuko("count", "--predictions", table, "--json").out)
    assert (again["classes"], again["repeated"]) == (alone["classes"], 30)
    rows = [row for row in read_predictions(table).rows if row.decision == "duplicate"]
    assert len(rows) == 30
    assert (rows[0].reason, len(rows[0].probabilities)) == (f"same cell as {files[0]}", 5)
