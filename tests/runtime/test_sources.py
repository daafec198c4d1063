"""What a user points at: every image once, in order, and nothing passed over in silence."""

from __future__ import annotations

import io
import os
import struct
import unicodedata
import zipfile
from pathlib import Path

import pytest

from leuko.errors import DataError, ImageError
from leuko.imaging.decode import REJECT_REASONS, encode_png
from leuko.runtime.sources import expand, named_files
from leuko.source import Source, file_source
from leuko.support.files import mark_own_picture
from leuko.support.reporter import Reporter
from tiny import open_to_all, paint, unprivileged, write_picture

PICTURE = encode_png(paint("Monocyte"))


def names(*arguments: object, stdin: str = "") -> list[str]:
    return [source.name for source in expand(map(str, arguments), stdin=io.StringIO(stdin))]


def fault_of(source: Source) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        source.read()
    return caught.value.reason, caught.value.detail


def pictures(folder: Path, *paths: str) -> list[str]:
    return [str(write_picture(folder / path, "Monocyte")) for path in paths]


def test_files_keep_the_users_order_and_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path, "b.png", "a.jpg", "noname", "~x.jpg")
    monkeypatch.chdir(tmp_path)
    arguments = ["b.png", "./a.jpg", "noname", "~x.jpg", "b.png"]
    sources = list(expand(arguments))
    assert [source.name for source in sources] == arguments
    assert all(source.read() for source in sources)


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path, "a.png", "cells/b.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    sources = list(expand(["~/a.png", "~/cells"]))
    assert [len(source.read()) > 0 for source in sources] == [True, True]
    assert sources[0].name == "~/a.png"


def test_folders_are_read_to_the_bottom_and_sorted(tmp_path: Path) -> None:
    paths = ["b.png", "a.JPG", "sub/c.tiff", "sub/deep/d.webp", "other/e.bmp"]
    pictures(tmp_path, *paths)
    pictures(tmp_path, ".hidden.png", ".cache/x.png", "notes.txt", "sub/README")
    received = [str(Path(name).relative_to(tmp_path)) for name in names(tmp_path)]
    assert received == ["a.JPG", "b.png", "other/e.bmp", "sub/c.tiff", "sub/deep/d.webp"]


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no images in it; expected files ending in \.jpg"):
        names(tmp_path)


def test_links_are_followed_and_loops_and_dangling_ones_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    pictures(folder, "a.png")
    pictures(tmp_path, "elsewhere/b.png")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    (folder / "gone.png").symlink_to(tmp_path / "gone.png")
    (folder / "self.png").symlink_to(folder / "self.png")
    os.mkfifo(folder / "pipe.png")
    sources = {Path(s.name).name: s for s in expand([str(folder)])}
    assert sorted(sources) == ["a.png", "b.png", "gone.png", "pipe.png", "round", "self.png"]
    for name in ("gone.png", "pipe.png", "round", "self.png"):
        assert fault_of(sources[name])[0] == "unreadable", name
    assert "link to a folder already read" in fault_of(sources["round"])[1]
    assert sources["b.png"].read()


def test_a_link_to_a_folder_that_is_gone_is_listed(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    pictures(folder, "a.png")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / ".hidden").symlink_to(tmp_path / "elsewhere")
    a, more = expand([str(folder)])
    assert a.read()
    assert more.name == str(folder / "more")
    assert fault_of(more) == (
        "unreadable",
        f"{folder / 'more'} cannot be read: it is a link that leads nowhere "
        "(No such file or directory).",
    )
    # It may have held all the images there are.
    (folder / "a.png").unlink()
    assert names(folder) == [str(folder / "more")]


def test_a_dangling_link_as_an_argument_is_listed(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to("nowhere")
    (source,) = expand([str(tmp_path / "gone.png")])
    assert fault_of(source)[0] == "unreadable"


def test_a_folder_without_permission_is_listed(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    folder = tmp_path / "set"
    pictures(folder, "a.png", "closed/b.png")
    folder.chmod(0o755)
    (folder / "closed").chmod(0)
    with unprivileged():
        sources = {Path(source.name).name: source for source in expand([str(folder)])}
        assert sorted(sources) == ["a.png", "closed"]
        assert fault_of(sources["closed"]) == (
            "unreadable",
            f"{folder / 'closed'} cannot be read: Permission denied.",
        )
    (folder / "closed").chmod(0o755)


def test_globs(tmp_path: Path) -> None:
    wanted = pictures(tmp_path, "a1.png", "a2.png", "sub/a3.png")
    pictures(tmp_path, "b.png", "[x].png")
    assert names(tmp_path / "a*.png") == wanted[:2]
    assert names(tmp_path / "**" / "a*.png") == wanted
    assert names(tmp_path / "[x].png") == [str(tmp_path / "[x].png")]  # a name, not a pattern
    with pytest.raises(DataError, match="Nothing matches"):
        names(tmp_path / "c*.png")
    with pytest.raises(DataError, match=r"Nothing matches .* but folders; give the folder itself"):
        names(tmp_path / "su*")


def test_what_does_not_exist_is_said_before_anything_is_read(tmp_path: Path) -> None:
    first = pictures(tmp_path, "a.png")
    for missing in ("missing.png", "x" * 300, ""):
        with pytest.raises(DataError, match="does not exist"):
            expand([*first, missing])


def test_a_glob_of_nothing_is_said_before_anything_is_read(tmp_path: Path) -> None:
    first = pictures(tmp_path, "a.png", "sub/b.png")
    with pytest.raises(DataError, match="Nothing matches"):
        expand([first[0], str(tmp_path / "c*.png")])
    with pytest.raises(DataError, match="but folders; give the folder itself"):
        expand([first[0], str(tmp_path / "su*")])


def test_files_passed_over_for_their_names_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    pictures(folder, "a.png", "notes.txt", "sub/cell", ".hidden", ".cache/cell")
    path = write_zip(tmp_path / "z.zip", {"b.png": PICTURE, "readme": b"x", "__MACOSX/c": b"x"})
    said: list[str] = []
    sources = expand([str(folder), str(path)], reporter=Reporter(say=said.append))
    assert len(list(sources)) == 2
    assert said == [
        "3 files were passed over: only names that end in .jpg, .jpeg, .png, .bmp, .tif, .tiff, "
        ".webp count.",
        "Passed over, as no pictures of cells: 1 x __MACOSX, made by macOS.",
    ]
    assert len(list(expand([str(folder), str(path)]))) == 2  # nobody listens
    list(
        expand(
            [str(folder / "a.png"), str(folder / "sub" / "cell")],
            reporter=Reporter(say=said.append),
        )
    )
    assert len(said) == 2


STRAYS = ("@eaDir/a.png/SYNOFILE_THUMB_M.jpg", "@eaDir/b.png/SYNOFILE_THUMB_M.jpg", "._a.png",
          "sub/.@__thumb/default1.jpg", "sub/Thumbs.db")  # fmt: skip


def spoilt(folder: Path) -> list[str]:
    """Three cells among what others put beside them; their names."""
    pictures(folder, "a.png", "sub/b.png", "sub/aug_2_elsewhere.jpg", "aug_1_a.jpg", *STRAYS[:4])
    (folder / STRAYS[4]).write_bytes(b"x")
    (folder / "sheet.png").write_bytes(mark_own_picture(PICTURE))
    return ["a.png", "sub/aug_2_elsewhere.jpg", "sub/b.png"]


@pytest.mark.parametrize("way", ["folder", "glob", "list", "shell", "zip"])
def test_what_is_no_cell_is_passed_over_and_said(way: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    cells = spoilt(folder)
    every = sorted(str(file) for file in folder.rglob("*.[pj]*g"))
    arguments = [str(folder)]
    if way == "glob":
        arguments = [str(folder / "**" / "*g")]
    elif way == "list":
        (tmp_path / "l.txt").write_text("\n".join(every))
        arguments = [str(tmp_path / "l.txt")]
    elif way == "shell":
        arguments = every
    elif way == "zip":
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
            for file in folder.rglob("*"):
                archive.write(file, file.relative_to(folder))
        folder = tmp_path / "z.zip"
        arguments = [str(folder)]
    said: list[str] = []
    found = [source.name for source in expand(arguments, reporter=Reporter(say=said.append))]
    assert sorted(found) == [str(folder / name) for name in cells]
    assert len(said) == 1
    told = set(said[0].rstrip(".").partition(": ")[2].split("; "))
    assert {"1 x pictures that Leuko drew", "1 x @eaDir, a NAS's thumbnails",
            "1 x aug_<n>_..., augmented copies beside their originals"} <= told  # fmt: skip


def test_what_alone_is_asked_for_by_name(tmp_path: Path) -> None:
    spoilt(tmp_path)
    assert names(tmp_path / "aug_1_a.jpg") == [str(tmp_path / "aug_1_a.jpg")]
    (thumbnail,) = (tmp_path / "@eaDir" / "b.png").iterdir()
    assert names(thumbnail) == [str(thumbnail)]
    with pytest.raises(DataError, match="was drawn by Leuko"):
        names(tmp_path / "sheet.png")
    with pytest.raises(DataError, match=r"no image to read.*2 x pictures that Leuko drew"):
        names(tmp_path / "sheet.png", tmp_path / "sheet.png")
    with pytest.raises(DataError, match="Nothing matches"):
        names(tmp_path / "nothing*.png")


def test_one_bad_argument_is_one_source_among_the_others(tmp_path: Path) -> None:
    (good,) = pictures(tmp_path, "a.png")
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 not really")
    (tmp_path / "gone.zip").symlink_to("nowhere")
    write_zip(tmp_path / "hollow.zip", {"readme.txt": b"x"})
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "hollow.txt").write_text("# nothing yet\n")
    due = {
        "bad.zip": ("unreadable", "cannot be read as a zip archive"),
        "gone.zip": ("unreadable", "cannot be read as a zip archive"),
        "hollow.zip": ("not-an-image", "has no images in it."),
        "bad.txt": ("unreadable", "cannot be read as a list of paths"),
        "hollow.txt": ("not-an-image", "lists no images."),
    }
    for name, (reason, sentence) in due.items():
        bad = str(tmp_path / name)
        before, refused, after = expand([good, bad, good])
        assert (before.read(), after.read()) == (Path(good).read_bytes(),) * 2
        assert refused.name == bad
        told = fault_of(refused)
        assert told[0] == reason
        assert told[0] in REJECT_REASONS
        assert sentence in told[1]
        with pytest.raises(DataError) as alone:
            names(bad)
        assert str(alone.value) == told[1]
    _, refused = expand([good, "-"], stdin=io.StringIO("\n"))
    assert refused.name == "-"
    assert fault_of(refused) == ("not-an-image", "Standard input lists no images.")


def test_too_large_an_archive_is_one_source_among_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leuko.runtime.sources._MAX_MEMBERS", 2)
    path = write_zip(tmp_path / "z.zip", {f"{number}.png": PICTURE for number in range(3)})
    (good,) = pictures(tmp_path, "a.png")
    _, refused = expand([good, str(path)])
    assert fault_of(refused) == ("too-large", f"{path} holds more than 2 images.")


def test_a_folder_of_nothing_is_said_before_anything_is_read(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    (good,) = pictures(tmp_path, "a.png")
    pictures(tmp_path, "notes/readme.txt", "closed/b.png")
    (tmp_path / "closed").chmod(0)
    with pytest.raises(DataError, match=r"notes has no images in it; expected files ending in"):
        next(expand([good, str(tmp_path / "notes")]))
    with (
        unprivileged(),
        pytest.raises(DataError, match=r"closed cannot be read: Permission denied\."),
    ):
        next(expand([good, str(tmp_path / "closed")]))
    (tmp_path / "closed").chmod(0o755)


def test_a_folder_that_is_emptied_later_is_one_source_among_the_others(tmp_path: Path) -> None:
    good, only = pictures(tmp_path, "a.png", "set/b.png")
    sources = expand([good, str(tmp_path / "set")])
    assert next(sources).read()
    Path(only).unlink()
    (refused,) = sources
    assert refused.name == str(tmp_path / "set")
    assert fault_of(refused)[0] == "not-an-image"


# Lists


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_list_is_relative_to_itself(encoding: str, tmp_path: Path) -> None:
    absolute = pictures(tmp_path, "far/ä.png")
    pictures(tmp_path, "lists/a.png", "lists/b c.png")
    text = f"a.png\r\n\n# a remark\n  b c.png \n{absolute[0]}\nmissing.png\n"
    (tmp_path / "lists" / "l.txt").write_text(text, encoding=encoding)
    sources = list(expand([str(tmp_path / "lists" / "l.txt")]))
    assert [Path(source.name).name for source in sources] == [
        "a.png",
        "b c.png",
        "ä.png",
        "missing.png",
    ]
    assert all(source.read() for source in sources[:3])
    assert fault_of(sources[3])[0] == "unreadable"


def test_a_list_from_windows(tmp_path: Path) -> None:
    cells = pictures(tmp_path, "d/a.png", "d/b.png", unicodedata.normalize("NFD", "d/zä.png"))
    text = 'd\\a.png\r\n"d\\b.png"\r\nd/zä.png\r\n"C:\\cells\\a.png"\r\n'
    (tmp_path / "l.txt").write_bytes(text.encode("utf-16"))
    sources = list(expand([str(tmp_path / "l.txt")]))
    assert [source.name for source in sources[:3]] == cells
    assert all(source.read() for source in sources[:3])
    assert fault_of(sources[3])[1] == (
        '"C:\\cells\\a.png" cannot be read: it is a path of a Windows computer; write paths '
        "relative to the list's own folder."
    )
    assert list(named_files(tmp_path / "l.txt"))[1:4] == cells


@pytest.mark.parametrize("data", [b"", b"\n# only a remark\n", b"\xff\xfe\x00"])
def test_a_list_of_nothing(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(data)
    with pytest.raises(DataError, match=r"lists no images|cannot be read as a list"):
        names(tmp_path / "l.txt")


def test_standard_input(tmp_path: Path) -> None:
    paths = pictures(tmp_path, "a.png", "b.png")
    assert names("-", stdin=f"{paths[1]}\n\n {paths[0]} \n") == paths[::-1]
    assert names("-", stdin=f'"{paths[1]}"\n"gone.png"\n') == [paths[1], '"gone.png"']
    with pytest.raises(DataError, match="Standard input lists no images"):
        names("-", stdin="\n")


def test_remarks_are_the_same_in_a_list_and_on_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path, "a.png", "#1.png")
    text = "# a remark\n  #another\n#1.png\na.png\n#2.png\n./#2.png\n"
    (tmp_path / "l.txt").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert names("-", stdin=text) == ["#1.png", "a.png", "./#2.png"]
    assert names("l.txt") == ["#1.png", "a.png", "#2.png"]


def test_standard_input_is_read_as_it_comes(tmp_path: Path) -> None:
    class Endless(io.StringIO):
        def __next__(self) -> str:
            return f"{tmp_path}/a.png\n"

    sources = expand(["-"], stdin=Endless())
    assert [next(sources).name for _ in range(3)] == [f"{tmp_path}/a.png"] * 3


# Archives


def write_zip(path: Path, members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_an_archive(tmp_path: Path) -> None:
    path = write_zip(
        tmp_path / "cells.ZIP",
        {
            "b/2.png": PICTURE,
            "a.png": PICTURE,
            "__MACOSX/a.png": b"junk",
            "b/._2.png": b"junk",
            "readme.txt": b"hello",
            "b/": b"",
        },
    )
    sources = list(expand([str(path)]))
    assert [source.name for source in sources] == [f"{path}/a.png", f"{path}/b/2.png"]
    assert [source.read() for source in sources] == [PICTURE, PICTURE]


def test_names_that_would_escape_are_only_labels(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = write_zip(folder / "z.zip", {"../../evil.png": PICTURE, "/etc/evil.png": PICTURE})
    assert [source.read() for source in expand([str(path)])] == [PICTURE, PICTURE]
    assert [place.name for place in tmp_path.rglob("*")] == ["in", "z.zip"]


def test_a_bomb_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "z.zip", {"bomb.png": bytes(30_000_000), "cell.png": PICTURE})
    assert path.stat().st_size < 100_000
    bomb, cell = expand([str(path)])
    assert fault_of(bomb) == ("too-large", "It unpacks to 30000000 bytes.")
    assert cell.read() == PICTURE


def test_a_member_behind_a_password_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "z.zip", {"a.png": PICTURE})
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1
    path.write_bytes(data)
    (locked,) = expand([str(path)])
    assert fault_of(locked) == ("unreadable", "The archive asks for a password; unpack it first.")


def test_a_damaged_member_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "z.zip", {"a.png": PICTURE, "b.png": PICTURE})
    data = bytearray(path.read_bytes())
    data[120:200] = bytes(80)  # within the first member
    path.write_bytes(data)
    damaged, whole = expand([str(path)])
    assert fault_of(damaged)[0] == "unreadable"
    assert "member is damaged" in fault_of(damaged)[1]
    assert whole.read() == PICTURE


def test_a_locked_member(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "z.zip", {"a.png": PICTURE}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        struct.pack_into("<H", data, data.index(magic) + offset, 1)  # "encrypted"
    path.write_bytes(data)
    (locked,) = expand([str(path)])
    assert fault_of(locked)[0] == "unreadable"


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"hello", b"PK\x05\x06" + bytes(17)])
def test_what_is_no_archive(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "z.zip").write_bytes(data)
    with pytest.raises(DataError, match="cannot be read as a zip archive"):
        names(tmp_path / "z.zip")


def test_an_archive_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no images in it"):
        names(write_zip(tmp_path / "z.zip", {"a.txt": b"x"}))


def test_a_member_without_a_name_is_passed_over(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "cells.zip", {"a.png": PICTURE, "b.png": PICTURE})
    data = bytearray(path.read_bytes())
    second = data.rindex(b"PK\x01\x02")
    data[second + 28], data[second + 32] = 0, 5  # its name is a remark of five bytes now
    path.write_bytes(data)
    assert [source.name for source in expand([str(path)])] == [f"{path}/a.png"]


def test_a_cut_archive_is_one_sentence(tmp_path: Path) -> None:
    data = write_zip(tmp_path / "z.zip", {f"{n}.png": PICTURE for n in range(5)}).read_bytes()
    for length in range(0, len(data), 97):
        (tmp_path / "z.zip").write_bytes(data[:length])
        with pytest.raises(DataError):
            names(tmp_path / "z.zip")


def test_members_are_read_when_it_is_their_turn(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "z.zip", {f"{n:02}.png": PICTURE for n in range(50)})
    sources = list(expand([str(path)]))  # the archive's own generator has ended
    assert {source.read() for source in reversed(sources)} == {PICTURE}


def test_file_source_is_lazy(tmp_path: Path) -> None:
    source = file_source(tmp_path / "later.png")
    pictures(tmp_path, "later.png")
    assert source.read()


def test_files_that_an_argument_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path, "cells/1.png", "cells/2.png")
    (tmp_path / "list.txt").write_text("# remark\ncells/1.png\n\n/else/where.png\nmissing.png\n")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    os.mkfifo(tmp_path / "pipe.txt")  # whose lines would be gone
    for argument, named in (
        ("cells", ["cells"]),
        (Path("cells/1.png"), ["cells/1.png"]),
        ("missing", []),
        ("cells/*.png", ["cells/1.png", "cells/2.png"]),
        ("list.txt", ["list.txt", "cells/1.png", "/else/where.png", "missing.png"]),
        ("bad.txt", ["bad.txt"]),
        ("pipe.txt", ["pipe.txt"]),
        ("-", ["/dev/stdin"]),
    ):
        assert sorted(named_files(argument)) == sorted(named)
