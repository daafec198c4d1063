"""Sources: listed here, read anywhere, in any order, always the same bytes."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest

from five import CLASSES
from leuko.errors import DataError, ImageError
from leuko.runtime.sources import expand
from leuko.source import Source, bytes_source, file_source, opened
from leuko.support.reporter import Reporter
from tiny import write_picture


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of everything that a user may point at."""
    for number in range(3):
        write_picture(tmp_path / "folder" / f"{number}.png", CLASSES[number], seed=number)
    (tmp_path / "folder" / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "folder" / "loop").symlink_to(tmp_path / "folder")
    with zipfile.ZipFile(tmp_path / "cells.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "folder" / "1.png", "b/1.png")
        archive.write(tmp_path / "folder" / "0.png", "a/0.png")
        archive.writestr("zeros.png", bytes(10**6))
    (tmp_path / "list.txt").write_text("folder/2.png\nfolder/none.png\n# a remark\n")
    (tmp_path / "bad.zip").write_bytes(b"PK no archive")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "~").mkdir()
    write_picture(tmp_path / "~" / "x.png", CLASSES[4])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(source: Source) -> bytes | tuple[str, str]:
    """The bytes of a source, or why there are none."""
    try:
        return source.read()
    except ImageError as error:
        return error.reason, error.detail


@pytest.mark.parametrize(
    "arguments",
    [
        ["folder"],
        ["folder/1.png", "folder/*.png", "./folder/../folder/2.png"],
        ["cells.zip", "folder/0.png", "cells.zip"],
        ["list.txt", "folder", "list.txt"],
        ["-"],
        ["folder/loop", "folder/gone.jpg"],
        ["folder/0.png", "bad.zip", "bad.txt", "folder/1.png"],
    ],
)
def test_any_process_reads_the_same(
    arguments: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = "folder/0.png\n~/x.png\nnowhere.png\n"
    here = list(expand(arguments, stdin=io.StringIO(listed)))
    wanted = [content(source) for source in here]
    sent = pickle.loads(pickle.dumps(here))
    assert sent == here
    # A worker may stand in another folder than the one who lists, and read in another order.
    monkeypatch.chdir("/")
    assert [content(source) for source in reversed(sent)] == wanted[::-1]
    assert [source.size() for source in sent if source.kind == "member"] == [
        len(data) if isinstance(data, bytes) else 10**6
        for source, data in zip(here, wanted, strict=True)
        if source.kind == "member"
    ]


def test_a_home_folder_is_understood_in_arguments(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(place / "folder"))
    (row,) = expand(["~/1.png"])
    assert (row.name, row.place) == ("~/1.png", str(place / "folder" / "1.png"))


def test_what_tells_one_from_another() -> None:
    one, other = bytes_source("a.png", b"cell"), bytes_source("a.png", b"another")
    assert one.identity != other.identity
    # The same content is not the same picture.
    assert one.identity != bytes_source("b.png", b"cell").identity
    assert one.identity == bytes_source("a.png", b"cell").identity
    assert (one.read(), one.size()) == (b"cell", 0)
    assert file_source("a.png").identity == ("a.png", "file", "a.png", 0, "")


def test_stamps_tell_a_change(place: Path) -> None:
    (before,) = expand(["folder/1.png"])
    os.utime(place / "folder" / "1.png", ns=(10**9, 10**9))
    (after,) = expand(["folder/1.png"])
    assert before != after
    assert after.stamp.endswith("-1000000000")


def test_what_does_not_exist_or_holds_nothing_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.parquet does not exist"):
        expand(["missing.parquet"])
    with pytest.raises(DataError, match="missing does not exist"):
        expand(["missing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty has no images in it"):
        expand([str(tmp_path / "empty")])
    with pytest.raises(DataError, match="Nothing matches"):
        list(expand(["*.parquet"]))


def test_an_archive_that_changed_is_not_read(place: Path) -> None:
    rows = list(expand(["cells.zip"]))
    assert rows[0].read()
    assert rows[2].index == 2
    with zipfile.ZipFile(place / "cells.zip", "a") as archive:
        archive.writestr("0.png", b"another first")
    with pytest.raises(DataError, match="was changed after it was listed"):
        rows[0].read()
    (place / "cells.zip").unlink()
    with pytest.raises(DataError, match="cannot be seen by the worker"):
        rows[0].read()


# Parquet


pa = pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")


def write_parquet(path: Path, names: list[str | None], data: list[bytes | None], **how) -> Path:
    """A file of pictures."""
    import pyarrow.parquet

    table = pa.table({"path": names, "label": [1] * len(names), "bytes": pa.array(data)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, **how)
    return path


def pictures(count: int) -> list[bytes | None]:
    """Distinct bytes."""
    return [f"picture {number}".encode() * 3 for number in range(count)]


def test_parquet_of_bytes(tmp_path: Path) -> None:
    names: list[str | None] = [f"slide/{n}.png" for n in range(100)]
    names[3] = None
    data = pictures(100)
    data[4] = None
    file = write_parquet(tmp_path / "a.parquet", names, data, row_group_size=30)
    rows = list(expand([str(file)]))
    assert [row.index for row in rows] == list(range(100))
    for chosen in (rows, rows[31:35], rows[95:], rows[::7], [rows[60], rows[2]], rows[:5] * 2):
        read = list(opened(chosen))
        assert [s.name for s in read] == [
            f"{file}/3" if row.index == 3 else f"slide/{row.index}.png" for row in chosen
        ]
        due = [data[row.index] or b"" for row in chosen]
        assert [s.read() for s in read] == [s.read() for s in chosen] == due


def test_a_folder_and_a_glob_of_parquet(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_parquet(tmp_path / "all.parquet" / f"{name}.parquet", [f"{name}.png"], [b"x"])
    names = [row.name for row in expand([str(tmp_path / "all.parquet")])]
    assert names == ["a.png", "b.png"]
    assert [row.name for row in expand([str(tmp_path / "all.parquet" / "*.parquet")])] == names


def test_parquet_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no Parquet at all")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(expand([str(tmp_path / "text.parquet")]))
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table({"path": ["a"]}), tmp_path / "thin.parquet")
    with pytest.raises(DataError, match="expected the columns path and bytes, received path"):
        list(expand([str(tmp_path / "thin.parquet")]))
    pyarrow.parquet.write_table(
        pa.table({"path": ["a"], "bytes": ["text"]}), tmp_path / "text.parquet"
    )
    with pytest.raises(DataError, match="must be binary, received string"):
        list(expand([str(tmp_path / "text.parquet")]))
    picture = write_picture(tmp_path / "a.png", CLASSES[0])
    before, refused, after = opened(expand([str(picture), f"{tmp_path}/text.parquet",
                                                  str(picture)]))  # fmt: skip
    assert before.read() == after.read() == picture.read_bytes()
    reason, detail = content(refused)
    assert reason == "unreadable"
    assert "must be binary, received string" in detail


def test_one_bad_archive_or_list_alone_is_an_error(place: Path) -> None:
    for name in ("bad.zip", "bad.txt"):
        with pytest.raises(DataError, match="cannot be read as a"):
            list(expand([name]))


def test_files_passed_over_for_their_names_are_said(place: Path) -> None:
    (place / "folder" / "notes").touch()
    said: list[str] = []
    assert len(list(expand(["folder", "cells.zip"], reporter=Reporter(say=said.append)))) == 8
    assert [sentence.partition(":")[0] for sentence in said] == ["1 file was passed over"]


def test_a_damaged_row_group_costs_its_rows_and_no_others(tmp_path: Path) -> None:
    import pyarrow.parquet

    names: list[str | None] = [f"{n}.png" for n in range(90)]
    data = [os.urandom(400) for _ in range(90)]
    file = write_parquet(
        tmp_path / "a.parquet", names, list(data), row_group_size=30, compression="snappy",
        use_dictionary=False, write_page_checksum=True,
    )  # fmt: skip
    column = pyarrow.parquet.ParquetFile(file).metadata.row_group(1).column(2)
    assert column.path_in_schema == "bytes"
    raw = bytearray(file.read_bytes())
    start = column.data_page_offset
    raw[start : start + 12] = b"\xff" * 12
    file.write_bytes(raw)
    rows = list(expand([str(file)]))
    got = [content(source) for source in opened(rows)]
    assert got[:30] == data[:30]
    assert got[60:] == data[60:]
    assert {reason for reason, _ in got[30:60]} == {"unreadable"}
    # Whoever asks for a part of them hears the same.
    assert [content(source) for source in opened(rows[45:75])] == got[45:75]


def test_a_picture_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from leuko import parquet

    file = write_parquet(tmp_path / "a.parquet", ["a"], [bytes(2000)])
    monkeypatch.setattr(parquet, "MAX_FILE_BYTES", 1000)
    (source,) = opened(expand([str(file)]))
    with pytest.raises(ImageError, match="larger than") as caught:
        source.read()
    assert caught.value.reason == "too-large"
