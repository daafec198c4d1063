"""The command line: exit codes, one document on stdout, one sentence on stderr."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import leuko as package
from five import CLASSES
from leuko.bundle import ModelBundle
from leuko.cli.main import _spread
from leuko.imaging.decode import encode_png, read_image
from leuko.prediction_files import csv_names, read_predictions, write_csv
from leuko.render.picture import prediction_sheet
from leuko.runtime.trust.decide import NEVER_CHECKED
from leuko.scheme import load_scheme
from tiny import open_to_all, paint, unprivileged, write_dataset, write_picture

Leuko = Callable[..., Any]
SOURCE = Path(package.__file__).resolve().parent.parent


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Six pictures and three files that are none."""
    folder = tmp_path / "cells"
    for number in range(6):
        write_picture(folder / f"{number}.png", CLASSES[number % 5], seed=number)
    (folder / "7.png").touch()
    (folder / "8.jpg").write_bytes(b"%!PS-Adobe")
    (folder / "9.jpg").write_bytes((folder / "0.png").read_bytes()[:60])
    return folder


def one_document(text: str) -> Any:
    """Parse text that must be one JSON document and nothing else."""
    return json.loads(text)


def one_sentence(err: str) -> str:
    """The last line of stderr, which must be the error."""
    lines = err.strip().splitlines()
    assert lines[-1].startswith("Error: "), err
    assert sum(line.startswith("Error: ") for line in lines) == 1
    return lines[-1]


# The command itself


def test_version(leuko: Leuko) -> None:
    done = leuko("--version")
    assert (done.code, done.out, done.err) == (0, f"leuko {package.__version__}\n", "")


def test_help_names_every_command(leuko: Leuko) -> None:
    done = leuko("--help")
    assert done.code == 0
    assert "Research use only" in done.out
    for name in ("predict", "evaluate", "train", "compare", "balance", "data", "models", "demo"):
        assert name in done.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["predict"],
        ["predict", "a.png", "--nonsense"],
        ["predict", "a.png", "--workers", "0"],
        ["predict", "a.png", "--workers", "two"],
        ["evaluate", "default"],
        ["evaluate", "default", "x", "--seed", "-1"],
        ["evaluate", "default", "x", "--seed", str(2**31)],
        ["data", "draw", "x", "--train", "0"],
        ["compare", "x", "--out", "y"],
        ["compare", "x", "--out", "y", "--recipes"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], leuko: Leuko) -> None:
    done = leuko(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err


@pytest.mark.parametrize(
    ("arguments", "spread"),
    [
        (["compare", "D", "--recipes", "a", "b", "--out", "x"],
         ["compare", "D", "--recipes", "a", "--recipes", "b", "--out", "x"]),
        (["--unseen", "p", "q", "--recipes", "a"],
         ["--unseen", "p", "--unseen", "q", "--recipes", "a"]),
        (["--recipes", "a", "--recipes", "b"], ["--recipes", "a", "--recipes", "b"]),
        (["--recipes", "a", "--json", "b"], ["--recipes", "a", "--json", "b"]),
        (["--recipes=a"], ["--recipes=a"]),
        (["predict", "-", "--csv", "x"], ["predict", "-", "--csv", "x"]),
        ([], []),
    ],
)  # fmt: skip
def test_several_values_may_follow_one_option(arguments: list[str], spread: list[str]) -> None:
    assert _spread(arguments) == spread


# Predict


@pytest.fixture
def doubting(tiny_bundle: ModelBundle, tmp_path: Path) -> Path:
    """A model that accepts nothing below 0.999999, and takes what is flat for no cell."""
    limits = {"confidence": 0.999999, "nucleus": -1.0}
    replace(tiny_bundle, thresholds=limits).save(tmp_path / "doubting.zip")
    return tmp_path / "doubting.zip"


def test_what_is_not_accepted_is_never_called_by_its_class(
    cells: Path, doubting: Path, tmp_path: Path, leuko: Leuko
) -> None:
    (cells / "6.png").write_bytes(encode_png(np.zeros((40, 40, 3), np.uint8)))
    done = leuko("predict", cells, "-m", doubting)
    assert done.code == 0
    rows = [line.split("\t")[1:] for line in done.out.splitlines()]
    assert re.fullmatch(r"unsure: Basophil or \w+\?", rows[0][0])
    assert re.fullmatch(r"[\d.]+%, accepted from 99\.9999% on", rows[0][1])
    assert rows[0][2].startswith("(likeliest: Basophil 0.")
    assert rows[6][:2] == ["not a cell", "nothing is in the picture"]
    assert "10 images: 6 unsure, 1 not a cell, 3 rejected. Look at the unsure images" in done.err
    document = one_document(leuko("predict", cells, "-m", doubting, "--json").out)
    assert document["decisions"] == {
        "class": 0, "unsure": 6, "not-a-cell": 1, "unlike-training": 0, "duplicate": 0,
        "set-aside": 0,
    }  # fmt: skip
    assert document["reasons"]["low-confidence"] == 6
    assert sum(document["reasons"].values()) == document["found"] == 10
    first = document["predictions"][0]
    assert (first["label"], first["likeliest"], first["limit"]) == ("", "Basophil", 0.999999)
    leuko("predict", cells, "-m", doubting, "--csv", tmp_path / "p.csv")
    table = read_predictions(tmp_path / "p.csv")
    assert {row.label for row in table.rows} == {""}
    assert [row.likeliest for row in table.rows[:6]] == [*CLASSES, "Basophil"]


@pytest.mark.slow
def test_nothing_that_could_be_read_is_an_error(
    cells: Path, tiny_model: Path, tmp_path: Path, leuko: Leuko
) -> None:
    bad = [cells / "7.png", cells / "8.jpg"]
    told = "None of 2 images could be read (1 empty-file, 1 unsupported-format)"
    for more in ([], ["--csv", tmp_path / "a.csv"], ["--json"], ["--strict"],
                 ["--explain", tmp_path / "heat"],
                 ["--engine", "processes", "--workers", 1,
                  "--out", tmp_path / "b.csv"]):  # fmt: skip
        done = leuko("predict", *bad, "-m", tiny_model, *more)
        assert done.code == 1, more
        assert told in one_sentence(done.err)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert leuko("count", *bad, "-m", tiny_model).code == 1


def test_predict_on_a_terminal(cells: Path, tiny_model: Path, leuko: Leuko) -> None:
    done = leuko("predict", cells, "--model", tiny_model)
    assert done.code == 0
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert [Path(row[0]).name for row in rows] == [f"{n}.png" for n in range(6)] + [
        "7.png", "8.jpg", "9.jpg",
    ]  # fmt: skip
    assert [row[1] for row in rows[:6]] == [*CLASSES, "Basophil"]
    assert [row[1:] for row in rows[6:]] == [
        ["rejected", "empty-file"],
        ["rejected", "unsupported-format"],
        ["rejected", rows[8][2]],
    ]
    assert rows[8][2] in ("truncated", "corrupt")
    assert "9 images: 6 accepted, 3 rejected. The answers name each rejected" in done.err
    assert "The file is EPS" in done.err


def test_predict_json_is_one_document(cells: Path, tiny_model: Path, leuko: Leuko) -> None:
    done = leuko("predict", cells, "--model", tiny_model, "--json")
    document = one_document(done.out)
    assert document["schema"] == "leuko.predictions/2"
    assert document["found"] == document["predicted"] + document["rejected"] == 9
    assert document["predictions"][0]["probabilities"]["Basophil"] > 0.5
    assert document["predictions"][6]["confidence"] is None


def test_predict_csv(cells: Path, tiny_model: Path, tmp_path: Path, leuko: Leuko) -> None:
    done = leuko("predict", cells, "--model", tiny_model, "--csv", tmp_path / "new" / "p.csv")
    assert (done.code, done.out) == (0, "")
    table = read_predictions(tmp_path / "new" / "p.csv")
    assert (len(table.predicted), len(table.rejected)) == (6, 3)
    text = (tmp_path / "new" / "p.csv").read_text()
    assert text.splitlines()[0] == ",".join(csv_names(load_scheme("differential-5")))
    again = leuko("predict", cells, "--model", tiny_model, "--csv", "/dev/stdout")
    assert again.code == 0
    assert Path("/dev/stdout").is_symlink()


def test_the_csv_is_the_python_table(
    cells: Path, tiny_model: Path, tmp_path: Path, leuko: Leuko
) -> None:
    leuko("predict", cells, "--model", tiny_model, "--csv", tmp_path / "p.csv")
    files = sorted(cells.iterdir())
    write_csv(package.load(tiny_model).predict(files), tmp_path / "q.csv")
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "q.csv").read_bytes()


def test_strict_is_3_and_everything_is_still_written(
    cells: Path, tiny_model: Path, tmp_path: Path, leuko: Leuko
) -> None:
    done = leuko("predict", cells, "-m", tiny_model, "--strict", "--csv", tmp_path / "p.csv")
    assert done.code == 3
    assert len(read_predictions(tmp_path / "p.csv")) == 9
    assert leuko("predict", cells / "0.png", "-m", tiny_model, "--strict").code == 0


def test_quiet_says_only_results(cells: Path, tiny_model: Path, leuko: Leuko) -> None:
    done = leuko("predict", cells, "--model", tiny_model, "--quiet")
    assert len(done.out.splitlines()) == 9
    assert done.err == ""


def test_verbose_names_the_model(cells: Path, tiny_model: Path, leuko: Leuko) -> None:
    assert "Model tiny, digest" in leuko("predict", cells, "-m", tiny_model, "--verbose").err


def test_predict_picture(cells: Path, tiny_model: Path, tmp_path: Path, leuko: Leuko) -> None:
    done = leuko("predict", cells / "1.png", "-m", tiny_model, "--picture", tmp_path / "one.png")
    assert done.code == 0
    assert read_image(tmp_path / "one.png").format == "PNG"
    leuko("predict", cells, "-m", tiny_model, "--picture", tmp_path / "many.png")
    assert (
        read_image(tmp_path / "many.png").pixels.size > read_image(tmp_path / "one.png").pixels.size
    )
    done = leuko("predict", cells / "7.png", "-m", tiny_model, "--picture", tmp_path / "none.png")
    assert done.code == 1
    assert "The image could not be read (empty-file)" in one_sentence(done.err)
    assert "\trejected\t" in done.out
    assert not (tmp_path / "none.png").exists()
    done = leuko("predict", cells / "7.png", "-m", tiny_model, "--picture", tmp_path / "none.png",
                 "--json")  # fmt: skip
    assert done.code == 1
    assert one_document(done.out)["rejected"] == 1


def test_a_picture_is_what_its_name_says(
    cells: Path, tiny_model: Path, tmp_path: Path, leuko: Leuko
) -> None:
    for name, kind in (("a.jpg", "JPEG"), ("b.JPEG", "JPEG"), ("c.PNG", "PNG")):
        done = leuko("predict", cells / "1.png", "-m", tiny_model, "--picture", tmp_path / name)
        assert done.code == 0, done.err
        assert read_image(tmp_path / name).format == kind
    for name in ("d.gif", "e", "f.png.webp"):
        done = leuko("predict", cells / "1.png", "-m", tiny_model, "--picture", tmp_path / name)
        assert (done.code, done.out) == (2, "")
        assert f"must end in .png, .jpg, .jpeg, received {name}" in one_sentence(done.err)


def test_predict_picture_of_an_archive(
    cells: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leuko: Leuko
) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(cells / "1.png", "cells/1.png")
        archive.write(cells / "2.png", "cells/2.png")
    # Where the members' names lead on this disk there is something else.
    write_picture(tmp_path / "elsewhere" / "z.zip" / "cells" / "1.png", "Neutrophil", seed=9)
    (tmp_path / "elsewhere" / "z.zip" / "cells" / "2.png").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    drawn = {}
    for name, images in (
        ("zip", ["z.zip"]),
        ("files", [cells / "1.png", cells / "2.png"]),
        ("explained", ["z.zip", "--explain", "heat"]),
    ):
        done = leuko("predict", *images, "-m", tiny_model, "--picture", f"{name}.png")
        assert done.code == 0, done.err
        drawn[name] = (tmp_path / f"{name}.png").read_bytes()
    assert drawn["zip"] == drawn["files"] == drawn["explained"]


def test_predict_picture_of_parquet(
    cells: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leuko: Leuko
) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")
    import pyarrow.parquet

    data = [(cells / f"{number}.png").read_bytes() for number in (1, 2)]
    table = pa.table({"path": ["3.png", "4.png"], "bytes": pa.array(data)})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    monkeypatch.chdir(cells)  # where 3.png and 4.png are others
    done = leuko("predict", tmp_path / "t.parquet", "-m", tiny_model,
                 "--picture", tmp_path / "p.png")  # fmt: skip
    assert done.code == 0, done.err
    rows = package.load(tiny_model).predict(["1.png", "2.png"]).rows
    pairs = [
        (read_image(row.path).pixels, replace(row, path=name))
        for row, name in zip(rows, ["3.png", "4.png"], strict=True)
    ]
    assert np.array_equal(read_image(tmp_path / "p.png").pixels, prediction_sheet(pairs))


@pytest.mark.slow
def test_a_sheet_of_some_says_of_how_many(
    cells: Path, tiny_model: Path, tmp_path: Path, leuko: Leuko
) -> None:
    done = leuko("predict", *[cells / "1.png"] * 60, "-m", tiny_model,
                 "--picture", tmp_path / "p.png")  # fmt: skip
    assert done.code == 0
    row = package.load(tiny_model).predict([cells / "1.png"]).rows[0]
    again = replace(row, decision="duplicate", reason=f"same cell as {row.path}")
    pairs = [(read_image(row.path).pixels, one) for one in (row, *[again] * 47)]
    drawn = read_image(tmp_path / "p.png").pixels
    assert np.array_equal(drawn, prediction_sheet(pairs, total=60))
    assert not np.array_equal(drawn, prediction_sheet(pairs))


def test_one_bad_argument_costs_its_own_row(
    cells: Path, tiny_model: Path, tmp_path: Path, leuko: Leuko
) -> None:
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 not really")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.txt").write_text("# nothing yet")
    images = [cells / "0.png", tmp_path / "bad.zip", tmp_path / "bad.txt", tmp_path / "empty.txt",
              cells / "1.png"]  # fmt: skip
    arguments = ("predict", *images, "-m", tiny_model, "--csv", tmp_path / "p.csv")
    done = leuko(*arguments)
    assert done.code == 0, done.err
    rows = read_predictions(tmp_path / "p.csv").rows
    assert [row.path for row in rows] == [str(image) for image in images]
    assert [row.reason for row in rows] == ["", "unreadable", "unreadable", "not-an-image", ""]
    assert "5 images: 2 accepted, 3 rejected." in done.err
    assert f"Rejected {tmp_path / 'bad.zip'} (unreadable: " in done.err
    assert leuko(*arguments, "--strict").code == 3


def test_files_passed_over_for_their_names_are_said(
    cells: Path, tiny_model: Path, leuko: Leuko
) -> None:
    (cells / "cell").write_bytes((cells / "0.png").read_bytes())
    done = leuko("predict", cells, "-m", tiny_model)
    assert "1 file was passed over: only names that end in .jpg" in done.err
    assert "9 images: 6 accepted, 3 rejected." in done.err


FORGED = "\x1b]0;OWNED\x07\nRejected other.png (fake).png"


def test_names_from_strangers_are_not_obeyed(
    tiny_model: Path, tmp_path: Path, leuko: Leuko
) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr(FORGED, b"no picture")
        archive.writestr("ß细胞\u202e\x9b.png", b"no picture")
    log = tmp_path / "log.txt"
    done = leuko("predict", tmp_path / "z.zip", "-m", tiny_model, "--log-file", log)
    assert done.code == 1
    for said in (done.out, done.err, log.read_text(encoding="utf-8")):
        assert all(c.isprintable() or c in "\n\t" for c in said)
        assert "ß细胞\\u202e\\x9b.png" in said
        assert "\\x1b]0;OWNED\\x07\\nRejected other.png (fake).png" in said
    for said in (done.err, log.read_text(encoding="utf-8")):
        assert not any(line.startswith("Rejected other") for line in said.splitlines())
    assert len(done.err.splitlines()) == 3
    document = leuko("predict", tmp_path / "z.zip", "-m", tiny_model, "--json").out
    assert all(c.isprintable() or c == "\n" or c == "\u202e" for c in document)
    names = [row["path"] for row in one_document(document)["predictions"]]
    assert names == [f"{tmp_path / 'z.zip'}/{name}" for name in (FORGED, "ß细胞\u202e\x9b.png")]


def test_an_error_in_the_log_is_one_line(tiny_model: Path, tmp_path: Path, leuko: Leuko) -> None:
    log = tmp_path / "log.txt"
    done = leuko("predict", FORGED, "-m", tiny_model, "--log-file", log)
    assert done.code == 1
    text = log.read_text(encoding="utf-8")
    assert all(c.isprintable() or c == "\n" for c in text)
    lines = text.splitlines()
    assert len(lines) == 3
    assert "Error: \\x1b]0;OWNED" in lines[2]
    assert one_sentence(done.err).startswith("Error: \\x1b]0;OWNED\\x07\\nRejected other.png")


def test_a_card_from_a_stranger(tiny_bundle: ModelBundle, tmp_path: Path, leuko: Leuko) -> None:
    card = "# Größe\r\n\n\x1b[2JA model\twith\x07 a title\rof its own\n"
    bundle = replace(tiny_bundle, name="\x1b[31mred\nvalidation: perfect", card=card)
    bundle.save(tmp_path / "m")
    assert leuko("models", "card", tmp_path / "m").out == (
        "# Größe\n\n\\x1b[2JA model\twith\\x07 a title\\rof its own\n"
    )
    lines = leuko("models", "show", tmp_path / "m").out.splitlines()
    assert lines[0] == "name: \\x1b[31mred\\nvalidation: perfect"


def test_what_was_done_to_a_picture_is_said(tiny_model: Path, tmp_path: Path, leuko: Leuko) -> None:
    from PIL import Image

    frames = [Image.fromarray(paint(name)) for name in CLASSES[:3]]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    done = leuko("predict", tmp_path / "stack.tif", "-m", tiny_model)
    assert "stack.tif: first of 3 frames" in done.err


def test_awkward_names(tiny_model: Path, tmp_path: Path, leuko: Leuko) -> None:
    folder = tmp_path / "set"
    names = ["=1+1.png", "a\nb.png", "a\rb.png", "ß细胞😀.png", "zelle_\udce4.png", "\x1b[31m.png"]
    for name in names:
        write_picture(folder / name, "Neutrophil")
    done = leuko("predict", folder, "-m", tiny_model)
    assert done.code == 0
    assert len(done.out.splitlines()) == len(names)
    assert "\x1b" not in done.out
    leuko("predict", folder, "-m", tiny_model, "--csv", tmp_path / "p.csv")
    rows = read_predictions(tmp_path / "p.csv").rows
    assert sorted(Path(row.path).name for row in rows) == sorted(names)
    document = one_document(leuko("predict", folder, "-m", tiny_model, "--json").out)
    assert sorted(Path(row["path"]).name for row in document["predictions"]) == sorted(names)


# Errors: one sentence, exit code 1, nothing on stdout


@pytest.mark.parametrize("json_too", [False, True])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "{cells}", "--model", "resnet"], "There is no bundled model 'resnet'"),
        (["predict", "{cells}", "--model", "./nothing"], "There is no model at ./nothing"),
        (["predict", "{cells}", "--model", "{broken}"], "cannot be read as a bundle"),
        (["predict", "{empty}", "--model", "{model}"], "has no images in it"),
        (["predict", "{missing}", "--model", "{model}"], "does not exist"),
        (["predict", "{long}", "--model", "{model}"], "does not exist"),
        (["predict", "{missing}/*.png", "--model", "{model}"], "Nothing matches"),
        (["predict", "{broken}", "--model", "{model}"], "cannot be read as a zip archive"),
        (["predict", "{cells}", "--model", "{model}", "--csv", "{broken}/p.csv"], "file stands"),
        (["predict", "{cells}", "--model", "{model}", "--csv", "{empty}"], "folder stands"),
        (["predict", "{cells}", "--model", "{model}", "--csv", "/proc/p.csv"], "cannot be written"),
        (
            ["predict", "{cells}", "--model", "{model}", "--log-file", "{empty}"],
            "cannot be written",
        ),
        (["evaluate", "{model}", "{missing}"], "does not exist"),
        (["evaluate", "{model}", "{empty}"], "no class folders; found no folders"),
        (["evaluate", "{model}", "{cells}"], "no class folders"),
        (["models", "show", "{broken}"], "cannot be read as a bundle"),
        (["data", "shrink", "{empty}", "{missing}"], "neither Train/Test folders nor class"),
        (["data", "info", "{missing}"], "does not exist"),
        (["balance", "{missing}", "{empty}"], "does not exist"),
    ],
)
def test_errors(
    arguments: list[str],
    message: str,
    json_too: bool,
    cells: Path,
    tiny_model: Path,
    tmp_path: Path,
    leuko: Leuko,
) -> None:
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 not really")
    (tmp_path / "empty").mkdir()
    places = {
        "cells": cells,
        "model": tiny_model,
        "broken": tmp_path / "broken.zip",
        "empty": tmp_path / "empty",
        "missing": tmp_path / "missing",
        "long": "x" * 300,
    }
    done = leuko(*[a.format(**places) for a in arguments], *["--json"] * json_too)
    assert done.code == 1
    assert done.out == ""
    assert message in one_sentence(done.err)
    assert list((tmp_path / "empty").iterdir()) == []


def test_unknown_recipes(tmp_path: Path, leuko: Leuko) -> None:
    write_dataset(tmp_path / "set" / "Train", each=1)
    done = leuko("train", tmp_path / "set", "--recipe", "mobilenet2", "--out", tmp_path / "run")
    assert done.code == 1
    assert "Did you mean 'mobilenetv2'?" in one_sentence(done.err)
    (tmp_path / "r.toml").write_text(
        'name = "r"\ntitle = "R"\nsede = 3\n[preprocess]\nsize=[64,64]'
    )
    done = leuko(
        "train", tmp_path / "set", "--recipe", tmp_path / "r.toml", "--out", tmp_path / "run"
    )
    assert "unknown key 'sede'. Did you mean 'seed'?" in one_sentence(done.err)
    assert not (tmp_path / "run").exists()


def test_a_damaged_bundle(
    tiny_bundle: ModelBundle, cells: Path, tmp_path: Path, leuko: Leuko
) -> None:
    tiny_bundle.save(tmp_path / "m")
    data = bytearray((tmp_path / "m" / "model.onnx").read_bytes())
    data[-30] ^= 1
    (tmp_path / "m" / "model.onnx").write_bytes(data)
    done = leuko("predict", cells, "--model", tmp_path / "m")
    assert done.code == 1
    assert "model.onnx is not the file that was written" in one_sentence(done.err)


def test_an_old_result_survives_a_failed_run(
    cells: Path, tiny_model: Path, tmp_path: Path, leuko: Leuko
) -> None:
    (tmp_path / "p.csv").write_text("old")
    (tmp_path / "empty").mkdir()
    done = leuko(
        "predict", cells, tmp_path / "empty", "-m", tiny_model, "--csv", tmp_path / "p.csv"
    )
    assert done.code == 1
    assert (tmp_path / "p.csv").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells", "empty", "p.csv"]


def test_an_output_folder_without_permission(
    cells: Path, tiny_model: Path, tmp_path: Path, leuko: Leuko
) -> None:
    open_to_all(tmp_path)
    open_to_all(tiny_model.parent)
    cells.chmod(0o755)
    with unprivileged():
        done = leuko("predict", cells, "-m", tiny_model, "--csv", tmp_path / "p.csv")
    assert done.code == 1
    assert "permission is denied; choose another folder" in one_sentence(done.err)


# Evaluate


def test_evaluate(tiny_model: Path, tmp_path: Path, leuko: Leuko) -> None:
    root = write_dataset(tmp_path / "Test", each=3)
    done = leuko("evaluate", tiny_model, root, "--resamples", 100)
    assert done.code == 0
    assert "accuracy" in done.out
    document = one_document(leuko("evaluate", tiny_model, root, "--resamples", 100, "--json").out)
    assert document["metrics"]["accuracy"]["value"] == 1
    assert document["command"].startswith("leuko evaluate ")
    (root / "Basophil" / "x.jpg").touch()
    done = leuko("evaluate", tiny_model, root, "--resamples", 100, "--strict", "--json")
    assert done.code == 3
    assert one_document(done.out)["data"] == {
        "folder": "Test", "digest": one_document(done.out)["data"]["digest"],
        "found": 16, "rejected": 1,
    }  # fmt: skip
    assert "16 images: 15 accepted, 1 rejected. The answers name each" in done.err
    done = leuko("evaluate", tiny_model, root, "--resamples", 100, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "evaluation.json").is_file()
    assert "Written: " in done.err


def test_evaluate_refuses_an_extra_folder_unless_told(
    tiny_model: Path, tmp_path: Path, leuko: Leuko
) -> None:
    root = write_dataset(tmp_path / "Test", each=1)
    (root / "Junk").mkdir()
    arguments = ("evaluate", tiny_model, root, "--resamples", 100)
    assert "--ignore NAME" in one_sentence(leuko(*arguments).err)
    assert leuko(*arguments, "--ignore", "Junk").code == 0


# Data sets and training


def test_data_info_in_the_base_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leuko: Leuko
) -> None:
    for missing in ("sklearn", "matplotlib"):
        monkeypatch.setitem(sys.modules, missing, None)
    for split in ("Train", "Test"):
        write_dataset(tmp_path / "set" / split, each=2)
    done = leuko("data", "info", tmp_path / "set", "--out", tmp_path / "audit")
    assert done.code == 0, done.err
    assert ["Basophil", "2", "2"] in [line.split() for line in done.out.splitlines()]
    assert "Background test skipped: it needs the package 'scikit-learn'" in done.out
    said = done.err.splitlines()
    assert said[0].startswith("audit.html is left out. Drawing plots needs the package ")
    assert said[1].startswith("The background test is left out: it needs")
    assert all("[report]" in line for line in said[:2])
    assert said[-1] == f"Written: {tmp_path / 'audit' / 'audit.json'}"
    assert [path.name for path in (tmp_path / "audit").iterdir()] == ["audit.json"]
    document = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert one_document(leuko("data", "info", tmp_path / "set", "--json").out) == document
    done = leuko("data", "info", tmp_path / "set", "--no-background", "--out", tmp_path / "audit")
    assert done.code == 0
    assert "Background test skipped: it was not asked for." in done.out


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a command imports TensorFlow."""

    def opened() -> None:
        raise AssertionError("the room was opened before the call was looked at")

    monkeypatch.setattr("leuko.cli.extras.training_room", opened)
    monkeypatch.setattr("leuko.cli.extras.comparing_room", opened)


@pytest.mark.usefixtures("no_room")
def test_what_is_wrong_is_said_before_tensorflow_is_imported(tmp_path: Path, leuko: Leuko) -> None:
    write_dataset(tmp_path / "set" / "Train", each=1)
    out = ("--out", tmp_path / "out")
    for arguments, code, message in (
        (("train", tmp_path / "none", "--recipe", "cnn"), 1, "does not exist"),
        (("train", tmp_path / "set", "--recipe", "cn"), 1, "Did you mean 'cnn'?"),
        (("compare", tmp_path / "set", "--recipes", "cn"), 1, "Did you mean 'cnn'?"),
        (("compare", tmp_path / "none", "--recipes", "cnn"), 1, "does not exist"),
        (("compare", tmp_path / "set", "--recipes", "cnn"), 1, "has no test folder"),
        (("compare", tmp_path / "set", "--recipes", "cnn", "cnn"), 2, "different recipes"),
    ):
        done = leuko(*arguments, *out)
        assert done.code == code
        assert done.out == ""
        assert message in one_sentence(done.err)
    assert not (tmp_path / "out").exists()


def test_train_says_what_it_passes_over_and_its_document_has_a_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leuko: Leuko
) -> None:
    names = ("accuracy", "balanced_accuracy", "macro_f1")
    run = SimpleNamespace(
        folder=tmp_path / "run",
        seconds={"fit": 1.0},
        history=[{}],
        validation={
            "metrics": {name: {"value": 0.5} for name in names},
            "baselines": {"majority": {"class": "Monocyte", "accuracy": 0.5, "beaten": False}},
            "confusion": np.diag([0, 0, 0, 3, 0]).tolist(),
            "classes": list(CLASSES),
        },
        bundle=SimpleNamespace(digest="ab", validation={"split": "slide"}),
    )
    room = SimpleNamespace(train=lambda *_, **__: run)
    monkeypatch.setattr("leuko.cli.extras.training_room", lambda: room)
    write_dataset(tmp_path / "set" / "Train", each=1)
    arguments = ("train", tmp_path / "set", "--recipe", "cnn", "--out", tmp_path / "run", "--json")
    done = leuko(*arguments)
    assert done.err == ""
    document = one_document(done.out)
    assert document["schema"] == "leuko.training/1"
    assert document["baselines"]["majority"]["beaten"] is False
    assert "No better than always answering Monocyte" in leuko(*arguments[:-1]).out
    write_dataset(tmp_path / "set" / "Balanced_Train", each=1)
    assert leuko(*arguments).err == (
        "Balanced_Train is not read: training takes Train, and a recipe balances it by itself.\n"
        "Balanced_Train is not read, only Train.\n"
    )


# Other commands


def test_shrink(tmp_path: Path, leuko: Leuko) -> None:
    root = write_dataset(tmp_path / "set", each=1)
    done = leuko("data", "shrink", root, tmp_path / "small", "--size", 20, "--json")
    assert one_document(done.out) == {
        "schema": "leuko.shrunk/1", "written": 5, "kept": 0, "rejected": [], "notes": [],
    }  # fmt: skip
    assert "5 kept" in leuko("data", "shrink", root, tmp_path / "small", "--size", 20).out


def test_models(tiny_model: Path, leuko: Leuko) -> None:
    document = one_document(leuko("models", "show", tiny_model, "--json").out)
    assert next(iter(document.items())) == ("schema", "leuko.model/1")
    assert document["classes"] == list(CLASSES)
    assert document["input"] == [24, 24]
    assert "name: tiny" in leuko("models", "show", tiny_model).out
    assert "Takes the nearest colour." in leuko("models", "card", tiny_model).out
    document = one_document(leuko("models", "list", "--json").out)
    assert list(document) == ["schema", "models"]
    assert document["schema"] == "leuko.models/1"
    assert all(one["accepts"] for one in document["models"].values())


def test_a_model_that_was_never_checked_says_so(
    cells: Path, tiny_bundle: ModelBundle, tmp_path: Path, leuko: Leuko
) -> None:
    model = tmp_path / "never.zip"
    replace(tiny_bundle, thresholds={}).save(model)
    assert f"decisions: {NEVER_CHECKED}" in leuko("models", "show", model).out
    assert not one_document(leuko("models", "show", model, "--json").out)["accepts"]
    done = leuko("predict", cells, "--model", model)
    assert done.err.count(NEVER_CHECKED) == 1
    assert done.out.count("\tunsure\tthis model is not calibrated yet\t") == 6
    document = one_document(leuko("predict", cells, "--model", model, "--json").out)
    assert document["decisions"]["unsure"] == 6
    done = leuko("count", cells, "--model", model)
    assert done.code == 0
    assert done.out.startswith("This model cannot count this microscope: it accepts 0 of 6 cells")
    assert NEVER_CHECKED in done.err
    write_dataset(tmp_path / "set", each=4)
    done = leuko("evaluate", model, tmp_path / "set")
    assert done.code == 0
    assert f"Warning: {NEVER_CHECKED}" in done.out
    assert "unsure 100.0%" in done.out


@pytest.mark.slow
def test_results_reach_a_file_while_progress_is_shown_on_a_terminal(
    cells: Path, tiny_model: Path, tmp_path: Path
) -> None:
    pty = pytest.importorskip("pty", reason="needs a terminal of its own")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "leuko", "predict", str(cells / "0.png"), "-m"]
    with (tmp_path / "out.txt").open("wb") as out:
        done = subprocess.run(
            [*command, str(tiny_model)], stdout=out, stderr=theirs, check=False, timeout=120
        )
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0
    assert "0.png" in (tmp_path / "out.txt").read_text()


# Variables and the log


def test_a_flag_comes_before_a_variable(
    cells: Path, tiny_model: Path, tiny_bundle: ModelBundle, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, leuko: Leuko,
) -> None:  # fmt: skip
    monkeypatch.setenv("LEUKO_MODEL", str(tiny_model))
    assert leuko("predict", cells / "0.png").code == 0
    done = leuko("predict", cells / "0.png", "--model", "./other")
    assert "no model at ./other" in one_sentence(done.err)
    monkeypatch.setenv("LEUKO_WORKERS", "0")
    assert leuko("predict", cells / "0.png").code == 2
    monkeypatch.setenv("LEUKO_WORKERS", "1")
    assert leuko("predict", cells / "0.png").code == 0
    root = write_dataset(tmp_path / "Test", each=1)
    arguments = ("evaluate", tiny_model, root, "--resamples", 100, "--json")
    monkeypatch.setenv("LEUKO_SEED", "11")
    assert one_document(leuko(*arguments).out)["seed"] == 11
    assert one_document(leuko(*arguments, "--seed", 12).out)["seed"] == 12
    monkeypatch.setenv("LEUKO_SEED", "eleven")
    assert leuko(*arguments).code == 2


def test_every_option_has_its_variable(
    cells: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leuko: Leuko
) -> None:
    monkeypatch.setenv("LEUKO_CSV", str(tmp_path / "rows.csv"))
    monkeypatch.setenv("LEUKO_QUIET", "1")
    assert leuko("predict", cells / "0.png", "--model", tiny_model).err == ""
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 2
    for name, value, said in (
        ("ENGINE", "dask", "There is no engine 'dask'"),
        ("DEVICE", "tpu", "received 'tpu'"),
        ("ADDRESS", "auto", "--address goes with --engine ray"),
    ):
        monkeypatch.setenv(f"LEUKO_{name}", value)
        refused = leuko("predict", cells, "--model", tiny_model)
        assert refused.code == 2
        assert said in refused.err
        monkeypatch.delenv(f"LEUKO_{name}")
    monkeypatch.setenv("LEUKO_FORMAT", "onyx")
    assert "onyx" in leuko("export", tiny_model).err
    monkeypatch.setenv("LEUKO_STRICT", "perhaps")
    refused = leuko("predict", cells, "--model", tiny_model)
    assert refused.code == 2
    assert "--strict" in refused.err


def test_a_log_file_has_every_remark_with_its_time(
    cells: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leuko: Leuko
) -> None:
    log = tmp_path / "leuko.log"
    monkeypatch.setenv("LEUKO_LOG_FILE", str(log))
    leuko("predict", cells, "-m", tiny_model, "--quiet")
    leuko("predict", cells, tmp_path / "nothing", "-m", tiny_model)
    lines = log.read_text().splitlines()
    assert all(line[:2] == "20" and line[4] == "-" for line in lines)
    text = log.read_text()
    assert "leuko predict" in text
    assert "9 images: 6 accepted, 3 rejected." in text  # though it was quiet
    assert "Model tiny" in text
    assert "Error: " in lines[-1]
    assert "does not exist" in lines[-1]


def test_a_log_takes_any_name(tiny_model: Path, tmp_path: Path, leuko: Leuko) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "zelle_\udce4.png").touch()
    done = leuko("predict", tmp_path / "set", "-m", tiny_model, "--log-file", tmp_path / "log")
    assert done.code == 1
    assert "empty-file" in (tmp_path / "log").read_text()


def test_a_device_that_is_not_there(tiny_model: Path, cells: Path, leuko: Leuko) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    done = leuko("predict", cells, "-m", tiny_model, "--device", "cuda")
    assert done.code == 1
    assert "cannot use cuda" in one_sentence(done.err)
    assert leuko("predict", cells, "-m", tiny_model, "--device", "tpu").code == 2


# As a process of its own


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-m", "leuko", *map(str, arguments)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("heard_ctrl_c")
def test_an_interrupt_is_130_and_leaves_the_old_file(
    cells: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text("old")
    arguments = ("predict", "-", "-m", tiny_model, "--csv", tmp_path / "p.csv", "--verbose")
    with start(*arguments) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(f"{cells / '0.png'}\n".encode())
        process.stdin.flush()
        assert process.stderr.readline().startswith(b"Model tiny")  # now it waits for more names
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        said = process.stderr.read().decode()
    assert said.startswith("Interrupted. A file of answers appears whole or not at all. ")
    assert "--resume" in said
    assert "Traceback" not in said
    assert (tmp_path / "p.csv").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells", "p.csv"]


@pytest.mark.slow
def test_names_on_standard_input_and_a_terminal_of_few_letters(
    cells: Path, tiny_model: Path, tmp_path: Path
) -> None:
    write_picture(tmp_path / "zelle_\udce4_細胞.png", "Monocyte")
    lines = (
        f"{cells / '2.png'}\n{tmp_path}/".encode() + b"zelle_\xe4_\xe7\xb4\xb0\xe8\x83\x9e.png\n"
    )
    with start("predict", "-", "-m", tiny_model, env={"PYTHONIOENCODING": "ascii"}) as process:
        out, err = process.communicate(lines, timeout=60)
    assert process.returncode in (0, 1)
    assert b"Traceback" not in err
    with start("predict", "-", "-m", tiny_model, env={"PYTHONUTF8": "1"}) as process:
        out, err = process.communicate(lines, timeout=60)
    assert process.returncode == 0, err
    assert b"2 images: 2 accepted. Count the classes with leuko count." in err
    assert out.count(b"\n") == 2


@pytest.mark.slow
def test_a_reader_that_leaves_early(cells: Path, tiny_model: Path) -> None:
    with start("predict", *[cells / "0.png"] * 40, "-m", tiny_model) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=60) in (0, 1)
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_a_full_device_is_one_sentence(cells: Path, tiny_model: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full on this machine")
    with start("predict", cells, "-m", tiny_model, "--csv", "/dev/full") as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"Traceback" not in err
    assert "disk is full" in one_sentence(err.decode()) or "No space left" in err.decode()
