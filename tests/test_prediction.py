"""The table that every door gives: exact columns, safe cells, nothing lost on the way."""

from __future__ import annotations

import csv
import gc
import io
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leuko
from leuko.errors import DataError
from leuko.prediction import (
    CSV_COLUMNS,
    PARQUET_COLUMNS,
    Prediction,
    PredictionTable,
    csv_line,
    parquet_predictions,
)

VALUES = np.array([0.1, 0.2, 0.3, 0.15, 0.25])


def answered(path: str = "a.jpg", values: np.ndarray = VALUES) -> Prediction:
    return Prediction.answered(path, values, "ab" * 32, "0123456789ab")


def rejected(path: str = "b.jpg") -> Prediction:
    return Prediction(path, "rejected", reason="corrupt", detail="It is.", model="0123456789ab")


def test_the_columns_are_those_promised() -> None:
    assert ",".join(CSV_COLUMNS) == (
        "path,status,reason,label,confidence,p_basophil,p_eosinophil,p_lymphocyte,p_monocyte,"
        "p_neutrophil,decision,sha256,model"
    )


def test_the_text_is_exact() -> None:
    table = PredictionTable((answered(), rejected()))
    assert table.csv_text() == (
        ",".join(CSV_COLUMNS) + "\n"
        "a.jpg,ok,,Lymphocyte,0.300000,0.100000,0.200000,0.300000,0.150000,0.250000,class,"
        + "ab" * 32 + ",0123456789ab\n"
        "b.jpg,rejected,corrupt,,,,,,,,,,0123456789ab\n"
    )  # fmt: skip


def test_an_answer() -> None:
    row = answered()
    assert (row.label, row.confidence, row.decision, row.status) == (
        "Lymphocyte",
        0.3,
        "class",
        "ok",
    )
    assert row.scores["Neutrophil"] == 0.25
    assert list(row.scores) == ["Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil"]
    even = answered(values=np.array([0.0, 0.4, 0.1, 0.1, 0.4]))
    assert even.label == "Eosinophil"  # of equal ones the first


def test_a_rejection() -> None:
    row = rejected()
    assert math.isnan(row.confidence)
    assert row.to_dict()["confidence"] is None
    assert row.to_dict()["probabilities"] is None
    assert row.to_dict()["detail"] == "It is."


def test_counts() -> None:
    table = PredictionTable((answered(), rejected(), answered("c.jpg")))
    assert len(table) == len(table.predicted) + len(table.rejected) == 3
    assert table.probabilities.shape == (2, 5)
    assert table.counts == {
        "Basophil": 0, "Eosinophil": 0, "Lymphocyte": 2, "Monocyte": 0, "Neutrophil": 0,
    }  # fmt: skip
    assert PredictionTable(()).probabilities.shape == (0, 5)
    document = table.to_dict()
    assert document["schema"] == "leuko.predictions/1"
    assert (document["found"], document["predicted"], document["rejected"]) == (3, 2, 1)
    doubted = replace(answered("d.jpg"), decision="unsure", reason="low-confidence")
    document = PredictionTable((*table.rows, doubted)).to_dict()
    assert (document["standing"]["Lymphocyte"], document["labels"]["Lymphocyte"]) == (2, 3)
    assert document["version"] == leuko.__version__


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_formulas_are_quoted(start: str, tmp_path: Path) -> None:
    table = PredictionTable((answered(f"{start}cmd|' /C calc'!A0.jpg"),))
    cells = next(csv.DictReader(io.StringIO(table.csv_text(), newline="")))
    assert cells["path"].startswith("'")
    assert float(cells["confidence"]) == 0.3  # numbers stay numbers
    table.to_csv(tmp_path / "p.csv")
    assert PredictionTable.from_csv(tmp_path / "p.csv") == table


AWKWARD = ["a,b", 'a"b', "a\nb", "a\rb", "a\r\nb", "'a", "'=a", "''=a", "", " a ", "ä\u2028b", "\0"]


def test_awkward_paths_come_back(tmp_path: Path) -> None:
    rows = [answered(path) for path in AWKWARD] + [rejected(os.fsdecode(b"zelle_\xe4.jpg"))]
    PredictionTable(tuple(rows)).to_csv(tmp_path / "p.csv")
    received = PredictionTable.from_csv(tmp_path / "p.csv").rows
    assert [row.path for row in received] == [row.path for row in rows]


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]), max_size=12), max_size=6))
def test_any_text_survives_a_line(cells: list[str]) -> None:
    received = list(csv.reader(io.StringIO(csv_line(["x", *cells]), newline="")))
    assert received == [["x", *cells]]


def test_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    rows = [answered(f"{n}.jpg", np.round(rng.dirichlet(np.ones(5)), 6)) for n in range(20)]
    table = PredictionTable((*rows, rejected()))
    table.to_csv(tmp_path / "p.csv")
    again = PredictionTable.from_csv(tmp_path / "p.csv")
    assert again.rows[:20] == table.rows[:20]
    assert (again.rows[20].reason, again.rows[20].detail) == ("corrupt", "")
    np.testing.assert_array_equal(again.probabilities, table.probabilities)
    text = (tmp_path / "p.csv").read_bytes()
    (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbf" + text)
    assert PredictionTable.from_csv(tmp_path / "excel.csv").rows[:20] == again.rows[:20]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("p_monocyte", "p_mono", 1),
        lambda text: text[: text.rindex("0.15")],  # cut in the middle of a row
        lambda text: text.replace("0.300000", "much", 1),
        lambda text: text.replace("0.200000", "nan", 1),
        lambda text: text.replace("0.200000", "-0.2", 1),
        lambda text: text.replace("Lymphocyte,", "Blast,", 1),
        lambda text: text.replace(",ok,", ",fine,", 1),
        lambda text: text.replace(",class,", ",Class,", 1),
        lambda text: text.replace(",", ";"),
        lambda text: "",
    ],
)
def test_a_damaged_table_is_one_sentence(change: object, tmp_path: Path) -> None:
    text = PredictionTable((answered(),)).csv_text()
    assert callable(change)
    (tmp_path / "p.csv").write_text(change(text))
    with pytest.raises(DataError, match=r"p\.csv"):
        PredictionTable.from_csv(tmp_path / "p.csv")


def test_no_table(tmp_path: Path) -> None:
    for read in (PredictionTable.from_csv, PredictionTable.from_file):
        with pytest.raises(DataError, match="cannot be read as predictions"):
            read(tmp_path / "p.csv")
    text = PredictionTable((answered(),)).csv_text()
    (tmp_path / "german.csv").write_text(text.replace(",", ";"))
    with pytest.raises(DataError, match="separated by semicolons"):
        PredictionTable.from_file(tmp_path / "german.csv")


def test_a_file_is_read_by_its_content(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'")
    full = replace(
        answered("=a.jpg"),
        preprocessing="ab",
        prediction_set=("Lymphocyte", "Neutrophil"),
        distance=1.25,
        quality=(("sharpness", 0.5),),
    )
    table = PredictionTable((full, rejected(), answered("'=b.jpg")))
    table.to_parquet(tmp_path / "p.csv")
    again = PredictionTable.from_file(tmp_path / "p.csv")
    assert again.rows[0] == full
    assert again.rows[1].to_dict() == table.rows[1].to_dict()
    assert again.rows[2].path == "'=b.jpg"
    table.to_csv(tmp_path / "p.parquet")
    assert [row.path for row in PredictionTable.from_file(tmp_path / "p.parquet").rows] == [
        row.path for row in table.rows
    ]
    (tmp_path / "cut").write_bytes((tmp_path / "p.csv").read_bytes()[:200])
    with pytest.raises(DataError, match="cut cannot be read as predictions"):
        PredictionTable.from_file(tmp_path / "cut")


def test_a_table_from_a_pipe(tmp_path: Path) -> None:
    PredictionTable((answered(), rejected())).to_csv(tmp_path / "p.csv")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = (tmp_path / "p.csv").read_bytes()
    with ThreadPoolExecutor(1) as writer:
        writing = writer.submit(pipe.write_bytes, data)
        assert PredictionTable.from_file(pipe) == PredictionTable.from_file(tmp_path / "p.csv")
        writing.result()


def test_a_parquet_file_that_is_given_up_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'")

    def interrupted() -> None:
        with parquet_predictions(tmp_path / "p.parquet", model="m") as file:
            file.write([answered()])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    assert "Exception ignored" not in capfd.readouterr().err


def test_parquet_and_pandas_hold_the_same_columns_and_rows(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'")
    pytest.importorskip("pandas", reason="needs pandas")
    probabilities = np.array([0.1, 0.2, 0.3, 0.25, 0.15])
    table = PredictionTable((answered(values=probabilities), rejected()))
    table.to_parquet(tmp_path / "p.parquet")
    read = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    frame = table.to_pandas()
    assert tuple(read[0]) == tuple(frame.columns) == PARQUET_COLUMNS
    assert [row["label"] for row in read] == frame["label"].tolist() == ["Lymphocyte", ""]
    assert read[0]["p_lymphocyte"] == frame["p_lymphocyte"][0] == 0.3
    assert read[1]["confidence"] is None
    assert frame["confidence"].isna().tolist() == [False, True]


@given(st.lists(st.text('ab ,"\r\n;é\x00', max_size=4), min_size=1, max_size=4))
def test_a_line_is_written_as_the_csv_module_writes_it(cells: list[str]) -> None:
    file = io.StringIO()
    csv.writer(file, lineterminator="\r\n").writerow(cells)
    assert csv_line(cells) == file.getvalue()[:-2] + "\n"
