"""The table that every door gives: exact columns, safe cells, nothing lost on the way."""

from __future__ import annotations

import csv
import gc
import io
import json
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
from five import CLASSES
from leuko.errors import DataError
from leuko.prediction import DECISIONS, Prediction, PredictionTable
from leuko.prediction_files import (
    columns,
    csv_line,
    csv_names,
    csv_text,
    parquet_predictions,
    read_predictions,
    to_pandas,
    write_csv,
    write_parquet,
)
from leuko.scheme import load_scheme, scheme_of
from leuko.support.artifacts import SCHEMA_VERSIONS, atomic_write_json

CSV_COLUMNS = csv_names(load_scheme("differential-5"))
VALUES = np.array([0.1, 0.2, 0.3, 0.15, 0.25])


def answered(path: str = "a.jpg", values: np.ndarray = VALUES) -> Prediction:
    return Prediction.answered(path, values, "ab" * 32, "0123456789ab")


def rejected(path: str = "b.jpg") -> Prediction:
    return Prediction(path, "rejected", reason="corrupt", detail="It is.", model="0123456789ab")


def test_the_columns_are_those_promised() -> None:
    assert ",".join(CSV_COLUMNS) == (
        "path,status,reason,label,confidence,p_basophil,p_eosinophil,p_lymphocyte,p_monocyte,"
        "p_neutrophil,decision,sha256,model,likeliest"
    )


def test_the_text_is_exact() -> None:
    table = PredictionTable((answered(), rejected()))
    assert csv_text(table) == (
        ",".join(CSV_COLUMNS) + "\n"
        "a.jpg,ok,,Lymphocyte,0.300000,0.100000,0.200000,0.300000,0.150000,0.250000,class,"
        + "ab" * 32 + ",0123456789ab,Lymphocyte\n"
        "b.jpg,rejected,corrupt,,,,,,,,,,0123456789ab,\n"
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
    assert even.likeliest == "Eosinophil"  # of equal ones the first


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
    assert table.labels == table.likeliest == {
        "Basophil": 0, "Eosinophil": 0, "Lymphocyte": 2, "Monocyte": 0, "Neutrophil": 0,
    }  # fmt: skip
    assert PredictionTable(()).probabilities.shape == (0, 5)
    document = table.to_dict()
    assert document["schema"] == "leuko.predictions/2"
    assert (document["found"], document["predicted"], document["rejected"]) == (3, 2, 1)
    doubted = replace(answered("d.jpg"), decision="unsure", reason="low-confidence")
    document = PredictionTable((*table.rows, doubted)).to_dict()
    assert (document["labels"]["Lymphocyte"], document["likeliest"]["Lymphocyte"]) == (2, 3)
    assert document["decisions"] == {**dict.fromkeys(DECISIONS, 0), "class": 2, "unsure": 1}
    assert document["reasons"] == {"corrupt": 1, "low-confidence": 1}
    assert document["version"] == leuko.__version__


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_formulas_are_quoted(start: str, tmp_path: Path) -> None:
    table = PredictionTable((answered(f"{start}cmd|' /C calc'!A0.jpg"),))
    cells = next(csv.DictReader(io.StringIO(csv_text(table), newline="")))
    assert cells["path"].startswith("'")
    assert float(cells["confidence"]) == 0.3  # numbers stay numbers
    write_csv(table, tmp_path / "p.csv")
    assert read_predictions(tmp_path / "p.csv") == table


AWKWARD = ["a,b", 'a"b', "a\nb", "a\rb", "a\r\nb", "'a", "'=a", "''=a", "", " a ", "ä\u2028b", "\0"]


def test_awkward_paths_come_back(tmp_path: Path) -> None:
    rows = [answered(path) for path in AWKWARD] + [rejected(os.fsdecode(b"zelle_\xe4.jpg"))]
    write_csv(PredictionTable(tuple(rows)), tmp_path / "p.csv")
    received = read_predictions(tmp_path / "p.csv").rows
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
    write_csv(table, tmp_path / "p.csv")
    again = read_predictions(tmp_path / "p.csv")
    assert again.rows[:20] == table.rows[:20]
    assert (again.rows[20].reason, again.rows[20].detail) == ("corrupt", "")
    np.testing.assert_array_equal(again.probabilities, table.probabilities)
    text = (tmp_path / "p.csv").read_bytes()
    (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbf" + text)
    assert read_predictions(tmp_path / "excel.csv").rows[:20] == again.rows[:20]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("confidence", "certainty", 1),
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
    text = csv_text(PredictionTable((answered(),)))
    assert callable(change)
    (tmp_path / "p.csv").write_text(change(text))
    with pytest.raises(DataError, match=r"p\.csv"):
        read_predictions(tmp_path / "p.csv")


def test_columns_of_other_classes_than_expected(tmp_path: Path) -> None:
    write_csv(eight_rows(), tmp_path / "p.csv")
    with pytest.raises(DataError, match="lacks the columns p_band_neutrophil, p_segmented_neu"):
        read_predictions(tmp_path / "p.csv", load_scheme("differential-6"))
    with pytest.raises(DataError, match="has probabilities of erythroblast, immature_gran"):
        read_predictions(tmp_path / "p.csv", load_scheme("differential-5"))


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as predictions"):
        read_predictions(tmp_path / "p.csv")
    text = csv_text(PredictionTable((answered(),)))
    (tmp_path / "german.csv").write_text(text.replace(",", ";"))
    with pytest.raises(DataError, match="separated by semicolons"):
        read_predictions(tmp_path / "german.csv")


def test_a_table_in_utf_16_is_read(tmp_path: Path) -> None:
    table = PredictionTable((answered(),))
    for encoding in ("utf-16", "utf-16-le"):
        (tmp_path / "excel.csv").write_text(csv_text(table), encoding=encoding)
        received = read_predictions(tmp_path / "excel.csv").rows
        assert [(row.path, row.label) for row in received] == [
            (row.path, row.label) for row in table.rows
        ]


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
    write_parquet(table, tmp_path / "p.csv")
    again = read_predictions(tmp_path / "p.csv")
    assert again.rows[0] == full
    assert again.rows[1].to_dict() == table.rows[1].to_dict()
    assert again.rows[2].path == "'=b.jpg"
    write_csv(table, tmp_path / "p.parquet")
    assert [row.path for row in read_predictions(tmp_path / "p.parquet").rows] == [
        row.path for row in table.rows
    ]
    (tmp_path / "cut").write_bytes((tmp_path / "p.csv").read_bytes()[:200])
    with pytest.raises(DataError, match="cut cannot be read as predictions"):
        read_predictions(tmp_path / "cut")


def test_a_table_from_a_pipe(tmp_path: Path) -> None:
    write_csv(PredictionTable((answered(), rejected())), tmp_path / "p.csv")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = (tmp_path / "p.csv").read_bytes()
    with ThreadPoolExecutor(1) as writer:
        writing = writer.submit(pipe.write_bytes, data)
        assert read_predictions(pipe) == read_predictions(tmp_path / "p.csv")
        writing.result()


def test_a_parquet_file_that_is_given_up_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'")

    def interrupted() -> None:
        with parquet_predictions(
            tmp_path / "p.parquet", model="m", scheme=load_scheme("pbc-8")
        ) as file:
            file.write(eight_rows().rows)
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
    write_parquet(table, tmp_path / "p.parquet")
    read = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    frame = to_pandas(table)
    assert [*read[0]] == [*frame.columns] == [column.name for column in columns(table.scheme)]
    assert [row["label"] for row in read] == frame["label"].tolist() == ["Lymphocyte", ""]
    assert read[0]["p_lymphocyte"] == frame["p_lymphocyte"][0] == 0.3
    assert read[1]["confidence"] is None
    assert frame["confidence"].isna().tolist() == [False, True]


@given(st.lists(st.text('ab ,"\r\n;é\x00', max_size=4), min_size=1, max_size=4))
def test_a_line_is_written_as_the_csv_module_writes_it(cells: list[str]) -> None:
    file = io.StringIO()
    csv.writer(file, lineterminator="\r\n").writerow(cells)
    assert csv_line(cells) == file.getvalue()[:-2] + "\n"


# Version 2, and what came before it


def decided() -> PredictionTable:
    """One row for each decision, and a rejected one."""
    rows = [
        replace(
            answered(f"{decision}.jpg"),
            decision=decision,
            reason="" if decision == "class" else "low-confidence",
            distance=0.5,
            limit=None if decision == "class" else 0.93,
            quality=(("sharpness", 0.5),),
            prediction_set=("Lymphocyte", "Neutrophil"),
            detail="first of 2 frames",
            preprocessing="ab",
        )
        for decision in DECISIONS
    ]
    return PredictionTable((*rows, replace(rejected(), preprocessing="ab")))


def test_only_what_is_accepted_has_a_label() -> None:
    for row in decided().rows:
        assert row.label == ("Lymphocyte" if row.decision == "class" else "")
        assert row.likeliest == ("Lymphocyte" if row.status == "ok" else "")
    accepted = answered()
    assert replace(accepted, decision="duplicate").label == ""
    assert accepted.outcome == ("class", "")
    assert rejected().outcome == ("rejected", "corrupt")
    told = replace(accepted, decision="duplicate", reason="the same cell as b.jpg")
    assert told.outcome == ("duplicate", "")  # names would make a tally as long as the table


def written(table: PredictionTable, kind: str, path: Path) -> Path:
    """The table as a file of a kind."""
    if kind == "csv":
        write_csv(table, path)
    elif kind == "parquet":
        pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'")
        write_parquet(table, path)
    else:
        atomic_write_json(path, table.to_dict())
    return path


KINDS = pytest.mark.parametrize("kind", ["csv", "parquet", "json"])


@KINDS
def test_every_kind_of_file_gives_the_rows_back(kind: str, tmp_path: Path) -> None:
    table = decided()
    again = read_predictions(written(table, kind, tmp_path / "p"))
    if kind == "csv":
        table = PredictionTable(
            tuple(
                replace(row, limit=None, distance=None, quality=(), prediction_set=(), detail="",
                        preprocessing="")
                for row in table.rows
            )
        )  # fmt: skip
    assert [row.to_dict() for row in again.rows] == [row.to_dict() for row in table.rows]
    assert again.labels["Lymphocyte"] == 1
    assert again.likeliest["Lymphocyte"] == len(DECISIONS)


@KINDS
def test_a_cell_that_was_set_aside_unasked_is_given_back(kind: str, tmp_path: Path) -> None:
    unasked = Prediction("cells/3.png", "ok", "border", decision="set-aside")
    table = PredictionTable((unasked, answered()))
    again = read_predictions(written(table, kind, tmp_path / "p"))
    assert [row.to_dict() for row in again.rows] == [row.to_dict() for row in table.rows]
    assert again.rows[0].outcome == ("set-aside", "border")
    assert np.isnan(again.probabilities[0]).all()
    assert again.probabilities[1].tolist() == list(answered().probabilities)
    assert again.decisions["set-aside"] == 1


def test_no_other_answer_may_be_empty(tmp_path: Path) -> None:
    unasked = Prediction("cells/3.png", "ok", "blurred", decision="unsure")
    write_csv(PredictionTable((unasked,)), tmp_path / "p.csv")
    with pytest.raises(DataError, match="cannot be read as predictions"):
        read_predictions(tmp_path / "p.csv")


@KINDS
def test_a_file_of_version_1_has_the_likeliest_class_as_its_label(
    kind: str, tmp_path: Path
) -> None:
    """Made by hand: the columns and keys that version 1 had."""
    numbers = dict(zip(CSV_COLUMNS[5:10], VALUES.tolist(), strict=True))
    known = {
        "path": "old.jpg", "status": "ok", "reason": "low-confidence", "label": "Lymphocyte",
        "confidence": 0.3, "decision": "unsure", "sha256": "ab" * 32, "model": "0123456789ab",
    }  # fmt: skip
    more = {"detail": "", "preprocessing": "ab", "prediction_set": ["Lymphocyte"], "distance": 0.5,
            "quality": None}  # fmt: skip
    accepted = {**known, "path": "class.jpg", "decision": "class", "reason": ""}
    path = tmp_path / "p"
    if kind == "csv":
        header = CSV_COLUMNS[: CSV_COLUMNS.index("likeliest")]
        lines = [[str({**one, **numbers}[name]) for name in header] for one in (known, accepted)]
        path.write_text("".join(csv_line(cells) for cells in (header, *lines)))
    elif kind == "json":
        scores = dict(zip(CLASSES, VALUES.tolist(), strict=True))
        rows = [{**one, **more, "probabilities": scores} for one in (known, accepted)]
        path.write_text(json.dumps({"schema": "leuko.predictions/1", "predictions": rows}))
    else:
        pa = pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")
        import pyarrow.parquet

        rows = [{**one, **numbers, **more} for one in (known, accepted)]
        file = pa.Table.from_pylist(rows, metadata={"leuko.schema": "leuko.predictions/1"})
        pyarrow.parquet.write_table(file, path)
    first, second = read_predictions(path).rows
    assert (first.label, first.likeliest, first.decision) == ("", "Lymphocyte", "unsure")
    assert (second.label, second.likeliest, second.decision) == (
        "Lymphocyte",
        "Lymphocyte",
        "class",
    )
    assert first.confidence == 0.3
    assert first.limit is None


@pytest.mark.parametrize("kind", ["parquet", "json"])
def test_a_newer_version_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setitem(SCHEMA_VERSIONS, "predictions", 3)
        path = written(decided(), kind, tmp_path / "p")
    with pytest.raises(DataError, match=r"written by a newer Leuko .*/3.* Update Leuko"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("row", "change"),
    [(0, ("ok,,Lymphocyte", "ok,,")), (1, ("low-confidence,,", "low-confidence,Lymphocyte,"))],
)
def test_a_label_at_odds_with_its_decision_is_refused(
    row: int, change: tuple[str, str], tmp_path: Path
) -> None:
    text = csv_text(PredictionTable((decided().rows[row],)))
    assert change[0] in text
    (tmp_path / "p.csv").write_text(text.replace(*change))
    with pytest.raises(DataError, match=r"has the label .* but the decision"):
        read_predictions(tmp_path / "p.csv")


@pytest.mark.parametrize("text", ["{", "{}", '{"schema": "leuko.predictions/2"}',
                                  '{"schema": "leuko.predictions/2", "predictions": [1]}',
                                  '{"schema": "leuko.count/1", "predictions": []}'])  # fmt: skip
def test_json_that_is_no_predictions(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(DataError, match=r"p\.json"):
        read_predictions(tmp_path / "p.json")


EIGHT = load_scheme("pbc-8")


def eight_rows() -> PredictionTable:
    rows = [
        Prediction.answered(f"{place}.jpg", np.eye(8)[place], "ab" * 32, "m", scheme=EIGHT)
        for place in (3, 7)
    ]
    return PredictionTable((*rows, replace(rejected(), scheme=EIGHT)), EIGHT)


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_a_table_of_eight_classes_comes_back_with_its_scheme(kind: str, tmp_path: Path) -> None:
    table = eight_rows()
    again = read_predictions(written(table, kind, tmp_path / "p"))
    assert again.scheme == EIGHT
    assert again.rows[0].scores["Immature granulocyte"] == 1.0
    assert again.labels["Platelet"] == 1
    assert again.probabilities.shape == (2, 8)


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_classes_of_ones_own_come_back_with_their_names(kind: str, tmp_path: Path) -> None:
    scheme = scheme_of(["Reactive lymphocyte", "中性粒细胞", "other"])
    rows = [
        Prediction.answered("a.jpg", np.eye(3)[0], "ab" * 32, "m", scheme=scheme),
        Prediction.answered("b.jpg", np.eye(3)[1], "cd" * 32, "m", scheme=scheme),
    ]
    path = written(PredictionTable(tuple(rows), scheme), kind, tmp_path / "p")
    assert read_predictions(path).scheme.names == scheme.names
    assert [row.label for row in read_predictions(path, scheme).rows] == list(scheme.names[:2])
