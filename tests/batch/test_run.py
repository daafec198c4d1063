"""From images to one file: nothing lost, nothing twice, whatever happens to the workers."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.drawn import Cells, write_cells
from five import CLASSES
from leuko.batch.partition import (
    DIED,
    Answer,
    Loss,
    Piece,
    answer_piece,
    cut,
    decode_answers,
    encode_answers,
    predict_partition,
)
from leuko.batch.run import BatchResult, open_engine, predict_to_file
from leuko.bundle import ModelBundle
from leuko.errors import BatchError, DataError, MissingExtraError, OutputError, UsageError
from leuko.prediction import Prediction, PredictionTable
from leuko.prediction_files import (
    columns,
    csv_names,
    csv_text,
    parquet_predictions,
    read_predictions,
)
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.repeats import mark_repeats
from leuko.runtime.sources import expand
from leuko.scheme import load_scheme
from leuko.source import Source
from leuko.support.artifacts import TEMPORARY_PREFIX

FIVE = load_scheme("differential-5")


@dataclass
class Here:
    """An engine without processes, whose losses are chosen."""

    classifier: OnnxClassifier
    poison: frozenset[str] = frozenset()
    wave: int | None = None
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    chance: float = 0.0
    stop_after: int | None = None
    entered: int = 0
    answered: int = 0
    description: str = "here"

    @property
    def bundle(self) -> ModelBundle:
        return self.classifier.bundle

    def __enter__(self) -> Here:
        self.entered += 1
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, pieces: Iterable[Piece]) -> Iterator[Answer | Loss]:
        for piece in pieces:
            if self.answered == self.stop_after:
                raise KeyboardInterrupt
            died = self.rng.random() < self.chance
            if died or any(Path(row.name).name in self.poison for row in piece.rows):
                yield Loss(piece, "it was chosen")
            else:
                self.answered += 1
                yield answer_piece(piece, self.classifier)


def run(cells: Path | str, engine: Here, out: Path, **more) -> BatchResult:
    """The whole way."""
    return predict_to_file(expand([str(cells)]), out, engine, **more)


@pytest.mark.parametrize("size", [7, 64, 1000])
@pytest.mark.parametrize("wave", [None, 2])
def test_the_same_csv_whatever_the_cut(
    size: int, wave: int | None, cells: Cells, tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "p.csv"
    told: list[int] = []
    result = run(
        cells.folder, Here(tiny_classifier, wave=wave), out, size=size, progress=told.append
    )
    assert told == [min(200, size * (n + 1)) for n in range(-(-200 // size))]
    assert out.read_bytes().decode() == cells.csv
    assert (result.found, result.predicted, result.rejected) == (200, 190, 10)
    assert result.outcomes == {
        ("class", ""): 190,
        ("rejected", "empty-file"): 5,
        ("rejected", "unsupported-format"): 5,
    }
    assert (result.partitions, result.kept, result.lost) == (-(-200 // size), 0, 0)
    assert os.listdir(out.parent) == ["p.csv"]


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    poison=st.sets(st.integers(0, 199), max_size=4),
    wave=st.sampled_from([None, 1, 4]),
    size=st.integers(5, 90),
    seed=st.integers(0, 99),
    chance=st.sampled_from([0.0, 0.3]),
)
def test_only_what_kills_is_rejected(
    poison: set[int],
    wave: int | None,
    size: int,
    seed: int,
    chance: float,
    cells: Cells,
    tiny_classifier: OnnxClassifier,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    names = frozenset(f"{number:04}.png" for number in poison)
    out = tmp_path_factory.mktemp("killed") / "p.csv"
    engine = Here(tiny_classifier, names, wave, random.Random(seed), chance)
    result = run(cells.folder, engine, out, size=size)
    got = read_predictions(out).rows
    assert result.found == result.predicted + result.rejected == len(got) == 200
    (out.parent / "whole.csv").write_text(cells.csv)
    whole = read_predictions(out.parent / "whole.csv").rows
    for row, due in zip(got, whole, strict=True):
        assert row.path == due.path
        if Path(row.path).name in names:
            assert (row.status, row.reason) == ("rejected", DIED)
        elif row.reason != DIED:
            assert row.to_dict() == due.to_dict()
    died = sum(row.reason == DIED for row in got)
    # A worker that dies by chance twice, on one picture alone, cannot be told from a deadly one.
    assert died >= len(names) if chance else died == len(names)


def test_workers_that_all_die_end_the_run(
    cells: Cells, tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    with pytest.raises(BatchError, match=r"64 workers in a row .* fewer --workers"):
        run(cells.folder, Here(tiny_classifier, chance=1.0), tmp_path / "p.csv")
    assert os.listdir(tmp_path) == []


# Stopped and resumed


def stopped(cells: Path, classifier: OnnxClassifier, out: Path, after: int = 4) -> Path:
    """A run that was interrupted; its work folder."""
    with pytest.raises(KeyboardInterrupt):
        run(cells, Here(classifier, stop_after=after), out, size=20)
    assert not out.exists()
    work = out.with_name(out.name + ".parts")
    assert len(list(work.glob("*.gz"))) == after
    return work


def test_resume(cells: Cells, tiny_classifier: OnnxClassifier, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    stopped(cells.folder, tiny_classifier, out)
    said: list[str] = []
    engine = Here(tiny_classifier)
    result = run(cells.folder, engine, out, size=20, resume=True, say=said.append)
    assert (result.kept, engine.answered) == (4, 6)
    assert said[0] == "4 of 10 partitions were finished before."
    assert out.read_text() == cells.csv
    assert os.listdir(tmp_path) == ["p.csv"]


def test_everything_is_done_but_the_last_step(
    cells: Cells, tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    out = tmp_path / "p.csv"
    out.mkdir()
    with pytest.raises(OutputError, match="a folder stands where a file is needed"):
        run(cells.folder, Here(tiny_classifier), out)
    out.rmdir()

    class Nasty(Here):
        def __exit__(self, *_: object) -> None:
            out.mkdir()

    with pytest.raises(OutputError):
        run(cells.folder, Nasty(tiny_classifier), out, size=20)
    out.rmdir()
    engine = Here(tiny_classifier)
    assert run(cells.folder, engine, out, size=20, resume=True).kept == 10
    assert engine.entered == 0
    assert out.read_text() == cells.csv


def test_a_run_that_was_stopped_is_not_thrown_away(
    cells: Cells, tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    work = stopped(cells.folder, tiny_classifier, tmp_path / "p.csv")
    with pytest.raises(OutputError, match=r"p.csv.parts holds 4 finished parts.*--resume"):
        run(cells.folder, Here(tiny_classifier), tmp_path / "p.csv", size=20)
    assert len(list(work.glob("*.gz"))) == 4


def test_another_model_is_refused(
    cells: Cells, tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    from tiny import make_bundle

    stopped(cells.folder, tiny_classifier, tmp_path / "p.csv")
    other = OnnxClassifier(make_bundle(0.5), threads=1)
    with pytest.raises(BatchError, match="was begun with tiny, digest"):
        run(cells.folder, Here(other), tmp_path / "p.csv", size=20, resume=True)


def test_answers_of_another_version_are_not_mixed_in(
    cells: Cells, tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    state = stopped(cells.folder, tiny_classifier, tmp_path / "p.csv") / "batch.json"
    state.write_text(state.read_text().replace("leuko.batch/4", "leuko.batch/1"))
    with pytest.raises(BatchError, match=r"was begun by an older Leuko.* Delete the folder"):
        run(cells.folder, Here(tiny_classifier), tmp_path / "p.csv", size=20, resume=True)
    assert state.is_file()


@pytest.mark.parametrize("change", ["content", "more", "fewer"])
def test_changed_images_are_done_again(
    change: str, tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    folder = write_cells(tmp_path / "cells", 60)
    stopped(folder, tiny_classifier, tmp_path / "p.csv", after=2)
    match change:
        case "content":
            (folder / "0001.png").write_bytes((folder / "0002.png").read_bytes())
        case "more":
            (folder / "0070.png").write_bytes((folder / "0002.png").read_bytes())
        case "fewer":
            (folder / "0000.png").unlink()
    engine = Here(tiny_classifier)
    result = run(folder, engine, tmp_path / "p.csv", size=20, resume=True)
    # Content touches the first of the three parts; a new last file, the third; without the first
    # file all of them move.
    assert result.kept == {"content": 1, "more": 2, "fewer": 0}[change]
    rows = predict_partition(expand([str(folder)]), tiny_classifier).rows
    table = PredictionTable(tuple(mark_repeats(rows)))
    assert (tmp_path / "p.csv").read_text() == csv_text(table)
    assert table.decisions["duplicate"] == (change != "fewer")


@pytest.mark.parametrize("how", ["short", "zeros", "foreign"])
def test_a_damaged_partition_is_named(
    how: str, cells: Cells, tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    work = stopped(cells.folder, tiny_classifier, tmp_path / "p.csv")
    part = min(work.glob("*.gz"))
    data = part.read_bytes()
    part.write_bytes(
        {
            "short": data[:-9],
            "zeros": bytes(len(data)),
            "foreign": encode_answers([Prediction("x", "rejected")]),
        }[how]
    )
    with pytest.raises(BatchError, match=f"{part.name} is damaged|1 answers for a partition of 20"):
        run(cells.folder, Here(tiny_classifier), tmp_path / "p.csv", size=20, resume=True)
    assert not (tmp_path / "p.csv").exists()


def test_a_folder_with_other_things_is_left_alone(
    cells: Cells, tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    (tmp_path / "p.csv.parts").mkdir()
    (tmp_path / "p.csv.parts" / "thesis.txt").write_text("dear")
    with pytest.raises(OutputError, match=r"other things .* such as thesis\.txt"):
        run(cells.folder, Here(tiny_classifier), tmp_path / "p.csv")
    assert (tmp_path / "p.csv.parts" / "thesis.txt").read_text() == "dear"


def test_a_run_killed_before_its_first_file_is_no_other_thing(
    cells: Cells, tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    left = tmp_path / "p.csv.parts" / f"{TEMPORARY_PREFIX}0a1b.tmp"
    left.parent.mkdir()
    left.write_text("{")
    run(cells.folder, Here(tiny_classifier), tmp_path / "p.csv")
    assert (tmp_path / "p.csv").is_file()
    assert not left.parent.exists()


def test_two_runs_do_not_share_a_folder(
    cells: Cells, tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    class Second(Here):
        def __enter__(self) -> Here:
            with pytest.raises(OutputError, match="Another run works in"):
                run(cells.folder, Here(self.classifier), tmp_path / "p.csv", resume=True)
            return self

    run(cells.folder, Second(tiny_classifier), tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == cells.csv


def test_an_old_result_survives_a_failed_run(
    tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text("old")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images in it"):
        run(tmp_path / "empty", Here(tiny_classifier), tmp_path / "p.csv")
    assert sorted(os.listdir(tmp_path)) == ["empty", "p.csv"]
    assert (tmp_path / "p.csv").read_text() == "old"


# What goes to and fro


def test_answers_travel_unchanged(tiny_classifier: OnnxClassifier, cells: Cells) -> None:
    rows = list(expand([str(cells.folder)]))[:40]
    table = predict_partition(rows, tiny_classifier)
    odd = replace(
        table.rows[0],
        path="zelle_\udce4 ß\u2028\n.png",
        detail="first of 3 frames",
        prediction_set=("Basophil", "Monocyte"),
        distance=1 / 3,
        quality=(("blur", 0.1), ("exposure", 1e-300)),
    )
    sent = [*table.predicted, odd]
    assert decode_answers(encode_answers(sent), "here", FIVE) == sent
    assert encode_answers(sent) == encode_answers(sent)
    halves = encode_answers(sent[:7]) + encode_answers(sent[7:])
    assert decode_answers(halves, "here", FIVE) == sent


def test_keys_tell_rows_and_model() -> None:
    rows = [Source(f"{n}.png", "file", f"/{n}.png", stamp="1-1") for n in range(5)]
    keys = [part.key for part in cut(rows, model="m", size=2)]
    assert [len(part.rows) for part in cut(rows, model="m", size=2)] == [2, 2, 1]
    assert keys == [part.key for part in cut(iter(rows), model="m", size=2)]
    assert set(keys).isdisjoint(part.key for part in cut(rows, model="n", size=2))
    rows[3] = replace(rows[3], stamp="1-2")
    again = [part.key for part in cut(rows, model="m", size=2)]
    assert [a == b for a, b in zip(keys, again, strict=True)] == [True, False, True]


def test_a_bundle_will_do(tiny_bundle: ModelBundle, cells: Cells) -> None:
    table = predict_partition(expand([str(cells.folder)]), tiny_bundle)
    assert csv_text(table) == cells.csv


def test_a_machine_that_sees_no_file_says_so(
    tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    rows = tuple(Source(f"{n}.png", "file", str(tmp_path / f"{n}.png"), 0, "9-9") for n in range(3))
    with pytest.raises(DataError, match="the worker that was to read them sees none"):
        answer_piece(Piece(0, 0, rows), tiny_classifier)
    (tmp_path / "1.png").write_bytes(b"")
    (table,) = [answer_piece(Piece(0, 0, rows), tiny_classifier)]
    reasons = [row.reason for row in decode_answers(table.payload, "", FIVE)]
    assert reasons == ["unreadable", "empty-file", "unreadable"]


def test_engines_by_name(tiny_bundle: ModelBundle) -> None:
    with pytest.raises(UsageError, match="no engine 'dask'; expected processes or ray"):
        open_engine("dask", tiny_bundle)
    with pytest.raises(UsageError, match="An address goes with the engine ray"):
        open_engine("processes", tiny_bundle, address="auto")
    with pytest.raises(UsageError, match="at least 1, received 0"):
        open_engine("processes", tiny_bundle, workers=0)


def test_ray_is_an_extra(tiny_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"package 'ray'.*pip install '\.\[ray\]'"):
        open_engine("ray", tiny_bundle)


# Parquet out


def test_parquet_has_the_rows_of_the_csv(
    cells: Cells, tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'")
    run(cells.folder, Here(tiny_classifier), tmp_path / "p.parquet", size=64)
    file = pq.ParquetFile(tmp_path / "p.parquet")
    assert file.num_row_groups == 4
    assert file.schema_arrow.names[:14] == csv_names(FIVE)
    assert file.schema_arrow.metadata[b"leuko.model"].decode() == tiny_classifier.digest
    (tmp_path / "p.csv").write_text(cells.csv)
    for got, due in zip(
        file.read().to_pylist(), read_predictions(tmp_path / "p.csv").rows, strict=True
    ):
        assert got["path"] == due.path
        assert got["status"] == due.status
        assert got["reason"] == due.reason
        answered = due.status == "ok"
        assert got["confidence"] == (due.confidence if answered else None)
        scores = tuple(got[f"p_{name.lower()}"] for name in CLASSES)
        assert scores == (due.probabilities if answered else (None,) * 5)
        assert len(got["preprocessing"]) == 12
        assert (got["prediction_set"], got["distance"]) == ([], None)
        assert (got["quality"] is not None) == answered
        assert bool(got["detail"]) == (not answered)


def test_parquet_holds_what_the_csv_has_no_column_for(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'")

    row = Prediction(
        path="a.png",
        status="ok",
        reason="blurred",
        likeliest="Monocyte",
        confidence=0.5,
        probabilities=(0.1, 0.1, 0.1, 0.5, 0.2),
        decision="unsure",
        detail="first of 3 frames",
        preprocessing="0123456789ab",
        prediction_set=("Monocyte", "Neutrophil"),
        distance=1 / 3,
        quality=(("blur", 0.25), ("exposure", 0.5)),
    )
    with parquet_predictions(tmp_path / "p.parquet", model="m" * 64, scheme=FIVE) as out:
        out.write([row])
        out.write([])
    (got,) = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [*got] == [column.name for column in columns(FIVE)]
    assert (got["decision"], got["reason"], got["p_neutrophil"]) == ("unsure", "blurred", 0.2)
    assert got["prediction_set"] == ["Monocyte", "Neutrophil"]
    assert (got["distance"], got["quality"]) == (1 / 3, [("blur", 0.25), ("exposure", 0.5)])
    assert (got["detail"], got["preprocessing"]) == ("first of 3 frames", "0123456789ab")


def test_parquet_takes_any_file_name(tiny_classifier: OnnxClassifier, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'")
    from tiny import write_picture

    for name in ("=1+1.png", "a\nb.png", "zelle_\udce4.png"):
        write_picture(tmp_path / "set" / name, "Neutrophil")
    run(tmp_path / "set", Here(tiny_classifier), tmp_path / "p.parquet")
    names = [Path(row["path"]).name for row in pq.read_table(tmp_path / "p.parquet").to_pylist()]
    assert names == ["=1+1.png", "a\nb.png", "zelle_\\udce4.png"]


def test_the_work_folder_says_whose_it_is(
    cells: Cells, tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    work = stopped(cells.folder, tiny_classifier, tmp_path / "p.csv")
    document = json.loads((work / "batch.json").read_text())
    assert document["schema"] == "leuko.batch/4"
    assert document["models"] == {tiny_classifier.name: tiny_classifier.digest}
