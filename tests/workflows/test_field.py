"""``leuko field``, whole: drawn fields in, a folder with a count out."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from leuko.data.synth import DrawnField, draw_field, draw_slide_style
from leuko.imaging.decode import encode_jpeg, encode_png
from leuko.workflows import field as workflow

Leuko = Callable[..., Any]

SCALE = 6.0
CELLS = {"Neutrophil": 3, "Lymphocyte": 2}
FIELDS = 3


def drawn(seed: int, cells: dict[str, int] | int = CELLS) -> DrawnField:
    style = draw_slide_style(np.random.default_rng([8, 1]))
    return draw_field(
        cells, np.random.default_rng([10, seed]), style, height=480, width=640,
        pixels_per_micrometre=SCALE, cut_share=0.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def smear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three fields, with the boxes of their cells."""
    folder = tmp_path_factory.mktemp("smear")
    rows = ["path,slide,label,row0,col0,row1,col1"]
    for number in range(FIELDS):
        one = drawn(number)
        name = f"field{number}.png"
        (folder / name).write_bytes(encode_png(one.pixels))
        for label, box in zip(one.labels, one.boxes, strict=True):
            rows.append(",".join([name, "s", label, *map(str, box)]))
    (folder / "boxes.csv").write_text("\n".join(rows) + "\n")
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_smear_is_found_named_counted_and_scored(
    smear: Path, tmp_path: Path, leuko: Leuko
) -> None:
    out = tmp_path / "run"
    done = leuko(
        "field", smear, "--out", out, "--truth", smear / "boxes.csv", "--boxes", "coco", "--json"
    )
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["schema"] == "leuko.field/1"
    assert told["detection"]["found"] == FIELDS * 5
    assert (told["detection"]["missed"], told["detection"]["false"]) == (0, 0)
    assert told["counting"]["error_per_field"] == 0
    assert {one["status"] for one in told["fields"]} == {"ok"}
    for one in told["fields"]:
        assert one["scale_source"] == "red cells"
        assert one["pixels_per_micrometre"] == pytest.approx(SCALE, rel=0.12)
    assert json.loads((out / "field.json").read_text())["fields"] == told["fields"]

    with (out / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["cell"] for row in rows] == [str(number) for number in range(1, 16)]
    for row in rows:
        crop = out / row["path"]
        assert hashlib.sha256(crop.read_bytes()).hexdigest() == row["sha256"]
        folder = ("cells", row["label"]) if row["label"] else ("others", row["decision"])
        assert crop.relative_to(out).parts[:2] == folder
    assert len(list((out / "overlays").iterdir())) == FIELDS
    assert len(json.loads((out / "boxes/coco/coco.json").read_text())["annotations"]) == 15
    page = (out / "report.html").read_text()
    assert "Research use only" in page
    assert "<script" not in page

    counted = leuko("count", "--predictions", out / "cells.csv", "--json")
    assert counted.code == 0
    theirs, ours = json.loads(counted.out), told["differential"]
    assert [row["accepted"] for row in theirs["classes"].values()] == [
        row["accepted"] for row in ours["classes"].values()
    ]


def test_a_run_that_was_stopped_goes_on_and_ends_the_same(
    smear: Path, tmp_path: Path, leuko: Leuko, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ["field", smear, "--model", "cnn"]
    whole = tmp_path / "whole"
    assert leuko(*call, "--out", whole, "--workers", 2).code == 0

    out = tmp_path / "stopped"
    looked: list[str] = []

    def stop(source: Any, *args: Any, **options: Any) -> Any:
        if looked:
            raise KeyboardInterrupt
        looked.append(source.name)
        return find(source, *args, **options)

    find = workflow.find_cells
    with monkeypatch.context() as patch:
        patch.setattr(workflow, "find_cells", stop)
        assert leuko(*call, "--out", out, "--workers", 1).code == 130
    assert not out.exists()
    refused = leuko(*call, "--out", out)
    assert refused.code == 1
    assert "holds 1 finished part of a run that was stopped. Add --resume" in refused.err
    assert leuko(*call, "--out", out, "--resume").code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "stopped"}
    ends, begun = digests(out), digests(whole)
    # The command is told in both, and differs.
    for name in ("field.json", "report.html"):
        ends.pop(name), begun.pop(name)
    assert ends == begun


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_and_ends_the_same(smear: Path, tmp_path: Path) -> None:
    """With SIGKILL, once a first field is done; the call is the same to the letter."""
    call = [sys.executable, "-m", "leuko", "field", str(smear), "--model", "cnn", "--out", "run"]
    ends = []
    for kill in (False, True):
        home = tmp_path / str(kill)
        home.mkdir()
        if kill:
            process = subprocess.Popen([*call, "--workers", "1", "--quiet"], cwd=home)
            while not any((home / "run.parts").glob("*.zip")) and process.poll() is None:
                time.sleep(0.002)
            process.kill()
            assert process.wait() == -signal.SIGKILL
            assert not (home / "run").exists()
        subprocess.run([*call, "--quiet", "--resume"], cwd=home, check=True, timeout=120)
        assert [path.name for path in home.iterdir()] == ["run"]
        ends.append(digests(home / "run"))
    assert ends[0] == ends[1]
    assert {"field.json", "report.html", "cells.csv"} <= {*ends[0]}


def test_a_scale_that_the_red_cells_contradict_is_told(
    smear: Path, tmp_path: Path, leuko: Leuko
) -> None:
    call = ["field", smear / "field0.png", "-m", "cnn"]
    off = leuko(*call, "--pixels-per-micrometre", 60, "--out", tmp_path / "off")
    assert off.code == 0
    told = re.search(r"field0.png tell (\S+) pixels to a micrometre, and 60 are given", off.err)
    assert told is not None
    assert float(told[1]) == pytest.approx(SCALE, rel=0.12)
    right = leuko(*call, "--pixels-per-micrometre", SCALE, "--out", tmp_path / "right")
    assert "leave --pixels-per-micrometre out" not in right.err


def test_it_stops_when_enough_cells_were_found(smear: Path, tmp_path: Path, leuko: Leuko) -> None:
    done = leuko("field", smear, "--out", tmp_path / "run", "--cells", 6, "-m", "cnn", "--json")
    told = json.loads(done.out)
    assert (told["asked"], told["left"], len(told["fields"])) == (6, 1, 2)


def test_what_is_no_field_is_told_and_never_counted(tmp_path: Path, leuko: Leuko) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    one = drawn(20)
    (folder / "a.png").write_bytes(encode_png(one.pixels))
    smaller = cv2.resize(one.pixels, (320, 240), interpolation=cv2.INTER_AREA)
    (folder / "b_thumbnail.jpg").write_bytes(encode_jpeg(smaller))
    (folder / "c_empty.png").write_bytes(encode_png(drawn(21, 0).pixels))
    (folder / "d_glass.png").write_bytes(encode_png(np.full((300, 400, 3), 225, np.uint8)))
    noise = np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)
    (folder / "e_noise.png").write_bytes(encode_png(noise))
    row0, col0, row1, col1 = one.boxes[0]
    middle = (row0 + row1) // 2, (col0 + col1) // 2
    top, left = (max(0, place - 75) for place in middle)
    cell = tmp_path / "cell.png"
    cell.write_bytes(encode_png(one.pixels[top : top + 150, left : left + 150]))
    (folder / "h_blurred.png").write_bytes(
        encode_png(cv2.GaussianBlur(drawn(22).pixels, (0, 0), 1.2 * SCALE))
    )
    (folder / "g_broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    out = tmp_path / "run"
    done = leuko("field", folder, "--out", out, "-m", "cnn", "--json")
    assert done.code == 0, done.err
    told = {Path(one["name"]).name: one for one in json.loads(done.out)["fields"]}
    found = {name: (one["status"], one["reason"]) for name, one in told.items()}
    assert found["a.png"] == ("ok", "")
    assert found["b_thumbnail.jpg"][0] == "repeated"
    assert found["c_empty.png"] == ("no-cell", "")
    assert found["d_glass.png"] == found["e_noise.png"] == ("unusable", "something-else")
    assert found["h_blurred.png"] == ("unusable", "blurred")
    assert found["g_broken.png"][0] == "rejected"
    assert Counter(name for name, one in told.items() if one["cells"]) == {"a.png": 1}
    (tmp_path / "empty.png").touch()
    refused = leuko("field", folder / "g_broken.png", "--out", tmp_path / "none")
    assert refused.code == 1
    assert re.search(r"g_broken.png cannot be read \([^;]*\.$", refused.err.strip())
    both = leuko("field", folder / "g_broken.png", tmp_path / "empty.png", "--out", tmp_path / "no")
    assert both.err.strip().endswith("; nor can 1 other.")
    alone = leuko("field", cell, "--out", tmp_path / "alone")
    assert (alone.code, json.loads((tmp_path / "alone/field.json").read_text())["statuses"]) == (
        0,
        {"single-cell": 1},
    )
    assert "leuko predict" in alone.out


def test_a_run_that_lies_among_its_fields_is_not_counted_again(
    smear: Path, tmp_path: Path, leuko: Leuko
) -> None:
    """Nor are its cells fields, also those with a part of a neighbour beside them."""
    folder = tmp_path / "smear"
    shutil.copytree(smear, folder)
    call = ["field", folder, "-m", "cnn", "--json"]
    once = json.loads(leuko(*call, "--out", folder / "run").out)
    done = leuko(*call, "--out", tmp_path / "again")
    assert "3 x pictures that Leuko drew" in done.err
    again = json.loads(done.out)
    assert again["statuses"]["ok"] == FIELDS
    assert again["statuses"]["single-cell"] >= 12
    assert again["found"] == once["found"]
    assert again["differential"]["classes"] == once["differential"]["classes"]


def test_a_folder_with_something_in_it_is_left_alone(
    smear: Path, tmp_path: Path, leuko: Leuko
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    refused = leuko("field", smear, "--out", tmp_path)
    assert refused.code == 1
    assert "is there and not empty" in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    unknown = leuko("field", smear, "--out", tmp_path / "x", "--boxes", "tiff")
    assert unknown.code == 2
    assert "--boxes must be one of csv, coco, yolo, voc, qupath, received tiff" in unknown.err


def test_an_output_without_a_name_is_refused(
    smear: Path, tmp_path: Path, leuko: Leuko, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for out in (".", ""):
        refused = leuko("field", smear, "--out", out)
        assert refused.code == 1
        assert ". names no output that can be made" in refused.err


def test_cells_at_the_border_are_set_aside(tmp_path: Path, leuko: Leuko) -> None:
    one = drawn(0)
    row0, col0, row1, col1 = max(one.boxes, key=lambda box: box[0])
    cut = one.pixels[: (row0 + 2 * row1) // 3]
    (tmp_path / "cut.png").write_bytes(encode_png(cut))
    done = leuko("field", tmp_path / "cut.png", "--out", tmp_path / "run", "--json")
    (told,) = json.loads(done.out)["fields"]
    aside = [cell for cell in told["cells"] if cell["decision"] == "set-aside"]
    assert [(cell["reason"], cell["label"], cell["probabilities"]) for cell in aside] == [
        ("border", "", None)
    ]
    assert len(cut) - aside[0]["box"][2] < 0.8 * SCALE


@pytest.mark.parametrize("seed", [30, 31, 32])
def test_a_cell_that_one_field_cuts_counts_in_the_other(
    seed: int, tmp_path: Path, leuko: Leuko
) -> None:
    """Two fields that share two thirds of each: every cell is whole in one of them at least."""
    style = draw_slide_style(np.random.default_rng([8, 1]))
    whole = draw_field(
        10, np.random.default_rng([11, seed]), style, height=480, width=1000,
        pixels_per_micrometre=SCALE, cut_share=0.0,
    )  # fmt: skip
    (tmp_path / "a.png").write_bytes(encode_png(whole.pixels[:, :750].copy()))
    (tmp_path / "b.png").write_bytes(encode_png(whole.pixels[:, 250:].copy()))
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    done = leuko("field", *pictures, "--out", tmp_path / "run", "-m", "cnn", "--json")
    cells = [cell for one in json.loads(done.out)["fields"] for cell in one["cells"]]
    kinds = Counter(cell["decision"] for cell in cells)
    near = sum(min(box[0], 480 - box[2], box[1], 1000 - box[3]) < 6 for box in whole.boxes)
    assert len(whole.boxes) - near <= kinds.total() - kinds["set-aside"] - kinds["duplicate"]
    assert kinds.total() - kinds["set-aside"] - kinds["duplicate"] <= len(whole.boxes)
    counted = leuko("count", "--predictions", tmp_path / "run/cells.csv", "-m", "cnn")
    assert counted.code == 0, counted.err


def test_predict_names_the_command_for_a_field(smear: Path, tmp_path: Path, leuko: Leuko) -> None:
    done = leuko("predict", smear / "field0.png", "--quiet")
    assert done.code == 0
    done = leuko("predict", smear / "field0.png")
    assert "field0.png shows a whole field, not one cell: give it to leuko field." in done.err
