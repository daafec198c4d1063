"""``leuko predict`` with an engine: the same CSV, Parquet too, and what is at odds is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from five import CLASSES
from leuko.prediction_files import csv_names
from leuko.scheme import load_scheme
from tiny import make_bundle, write_picture

Leuko = Callable[..., Any]


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Six pictures and two files that are none."""
    folder = tmp_path / "cells"
    for number in range(6):
        write_picture(folder / f"{number}.png", CLASSES[number % 5], seed=number)
    (folder / "7.png").touch()
    (folder / "8.jpg").write_bytes(b"%!PS-Adobe")
    return folder


@pytest.mark.slow
def test_processes_write_what_one_process_writes(
    cells: Path, tiny_model: Path, tmp_path: Path, leuko: Leuko
) -> None:
    assert leuko("predict", cells, "-m", tiny_model, "--csv", tmp_path / "one.csv").code == 0
    done = leuko(
        "predict", cells, "-m", tiny_model, "--engine", "processes", "--workers", 1,
        "--out", tmp_path / "many.csv", "--strict", "--verbose",
    )  # fmt: skip
    assert (done.code, done.out) == (3, "")
    assert (tmp_path / "many.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert "Engine: 1 processes with" in done.err
    assert "Rejected: 1 empty-file, 1 unsupported-format." in done.err
    assert "8 images: 6 accepted, 2 rejected." in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells", "many.csv", "one.csv"]


def test_out_names_a_csv_or_parquet(
    cells: Path, tiny_model: Path, tmp_path: Path, leuko: Leuko
) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'")
    done = leuko("predict", cells, "-m", tiny_model, "--out", tmp_path / "p.csv")
    assert (done.code, done.out) == (0, "")
    done = leuko("predict", cells, "-m", tiny_model, "--out", tmp_path / "p.parquet")
    assert (done.code, done.out) == (0, "")
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column_names[:14] == csv_names(load_scheme("differential-5"))
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert [line.split(",")[3] for line in lines[1:]] == table["label"].to_pylist()
    both = leuko(
        "predict", cells, "-m", tiny_model, "--csv", tmp_path / "q.csv",
        "--out", tmp_path / "q.PARQUET",
    )  # fmt: skip
    assert both.code == 0
    assert (tmp_path / "q.csv").read_bytes() == (tmp_path / "p.csv").read_bytes()
    assert pq.read_table(tmp_path / "q.PARQUET").equals(table)


def test_parquet_of_bytes_goes_in(
    cells: Path, tiny_model: Path, tmp_path: Path, leuko: Leuko
) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")
    import pyarrow.parquet

    files = sorted(cells.iterdir())
    names = [str(file) for file in files]
    pyarrow.parquet.write_table(
        pa.table({"path": names, "bytes": [file.read_bytes() for file in files]}),
        tmp_path / "cells.parquet",
    )
    leuko("predict", cells, "-m", tiny_model, "--csv", tmp_path / "p.csv")
    done = leuko(
        "predict", tmp_path / "cells.parquet", "-m", tiny_model, "--csv", tmp_path / "q.csv"
    )
    assert "8 images: 6 accepted, 2 rejected." in done.err
    assert (tmp_path / "q.csv").read_bytes() == (tmp_path / "p.csv").read_bytes()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--engine", "dask", "--out", "p.csv"], 2, "expected local, processes or ray"),
        (["--engine", "processes"], 2, "writes a file: add --out predictions.csv"),
        (["--engine", "processes", "--out", "p.txt"], 2, "must end in .csv or .parquet"),
        (["--out", "p.txt"], 2, "must end in .csv or .parquet"),
        (["--engine", "processes", "--out", "cells/../cells.csv/"], 1, "cannot be written"),
        (["--engine", "processes", "--out", "p.csv", "--csv", "q.csv"], 2, "give one of them"),
        (["--out", "p.csv", "--csv", "q.csv"], 2, "give one of them"),
        (["--engine", "processes", "--out", "p.csv", "--json"], 2, "--json goes with"),
        (["--engine", "processes", "--out", "p.csv", "--picture", "x.png"], 2, "--picture goes"),
        (["--engine", "processes", "--address", "auto", "--out", "p.csv"], 2, "--address goes"),
        (["--address", "auto"], 2, "--address goes with --engine ray"),
        (["--resume"], 2, "--resume goes with --engine processes"),
        (["--engine", "processes", "--out", "/proc/p.csv"], 1, "cannot be written"),
        (["--engine", "processes", "--out", "p.csv", "missing"], 1, "missing does not exist"),
    ],
)
def test_what_is_at_odds_is_said_at_once(
    options: list[str],
    code: int,
    message: str,
    cells: Path,
    tiny_model: Path,
    tmp_path: Path,
    leuko: Leuko,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells.csv").mkdir()
    done = leuko("predict", cells, "-m", tiny_model, *options)
    assert (done.code, done.out) == (code, "")
    (line,) = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells", "cells.csv"]


def test_a_run_that_was_stopped_is_refused_or_resumed(
    cells: Path, tiny_model: Path, tmp_path: Path, leuko: Leuko
) -> None:
    from leuko.batch.partition import cut, encode_answers, predict_partition
    from leuko.runtime.sources import expand
    from leuko.support.parts import open_parts

    bundle = make_bundle()
    out = tmp_path / "p.csv"
    (part,) = cut(expand([str(cells)]), model=bundle.digest)
    answers = encode_answers(predict_partition(part.rows, bundle).rows)

    def stop() -> None:
        with open_parts(out, ".jsonl.gz", {bundle.name: bundle.digest}, resume=False) as work:
            work.keep(part.key, answers)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    call = ["predict", cells, "-m", tiny_model, "--engine", "processes", "--out", out]
    refused = leuko(*call)
    assert refused.code == 1
    assert "holds 1 finished part of a run that was stopped. Add --resume" in refused.err
    done = leuko(*call, "--resume")
    assert done.code == 0
    assert "1 of 1 partitions were finished before." in done.err
    assert len(out.read_text().splitlines()) == 9
