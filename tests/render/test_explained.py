"""A picture for every answer: named safely, written whole, a few images held at a time."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from called import called
from five import CLASSES
from leuko.bundle import ModelBundle
from leuko.errors import OutputError, UsageError
from leuko.imaging.decode import encode_png
from leuko.render.explained import PictureNames, check_folder, explained
from leuko.runtime.classifier import OnnxClassifier
from leuko.source import Source, bytes_source, file_source
from leuko.support.reporter import Reporter
from tiny import make_pooled_onnx, open_to_all, paint, unprivileged, write_picture


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("cells/95-8-22-3_23_1.jpg", "95-8-22-3_23_1"),
        ("../../etc/passwd", "passwd"),
        ("/", "image"),
        ("..", "image"),
        ("", "image"),
        ("C:\\slides\\a b.png", "a_b"),
        ("x.zip/inner/cell.JPG", "cell"),
        (".hidden.png", "hidden"),
        ("nul.jpg", "image-nul"),
        ("COM1.tar.png", "image-COM1.tar"),
        ("console.png", "console"),
        ("a\nb\0c\x1b[0m.png", "a_b_c_0m"),
        ("\u7d30\u80de.png", "image"),
        ("x" * 300 + ".png", "x" * 100),
        ("$(rm -rf).png", "rm_-rf"),
    ],
)
def test_names_are_safe(path: str, name: str) -> None:
    assert PictureNames().take(path) == f"{name}.explained.png"


def test_names_are_given_once() -> None:
    names = PictureNames()
    paths = ["a.png", "b/a.jpg", "A.png", "a-2.png", "a.png", "a-2-2.png"]
    taken = [names.take(path).removesuffix(".explained.png") for path in paths]
    assert taken == ["a", "a-2", "A-3", "a-2-2", "a-4", "a-2-2-2"]
    rng = np.random.default_rng(1)
    many = PictureNames()
    parts = ["a", "A", "a-2", "a_2", "2", "-", ".", "a-3"]
    given = ["".join(rng.choice(parts, rng.integers(1, 4))) for _ in range(3000)]
    found = [many.take(f"{one}.png") for one in given]
    assert len({name.lower() for name in found}) == len(found)


def test_a_folder_that_would_be_read(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "cells")
    for place in ("cells", "cells/heat", "link/heat", "cells/../cells/a/b"):
        with pytest.raises(UsageError, match="Choose a folder outside it"):
            check_folder(tmp_path / place, [str(tmp_path / "cells")])
        assert not (tmp_path / "cells/heat").exists()
    for place in ("heat", "cells-heat"):
        check_folder(tmp_path / place, [str(tmp_path / "cells"), "-", "no/such*"])
        assert (tmp_path / place).is_dir()


@pytest.fixture
def remarks() -> list[str]:
    """What was said."""
    return []


def test_every_answer_has_its_picture(
    tiny_classifier: OnnxClassifier, tmp_path: Path, remarks: list[str]
) -> None:
    files = [write_picture(tmp_path / f"in/{n}.png", CLASSES[n % 5], seed=n) for n in range(6)]
    files[3].write_bytes(b"junk")
    out = tmp_path / "out"
    rows = list(
        explained(
            tiny_classifier,
            map(file_source, files),
            out,
            threads=3,
            reporter=Reporter(say=remarks.append),
        )
    )
    assert rows == list(tiny_classifier.predict(files).rows)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{n}.explained.png" for n in range(6) if n != 3
    )
    for path in out.iterdir():
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("PNG", "RGB")
            assert image.size[0] > 600
    assert remarks == []


@pytest.mark.slow
def test_only_a_few_images_are_held(tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    """However many there are: no source is asked for long before its answer is out."""
    bundle = replace(tiny_bundle, onnx=make_pooled_onnx())
    classifier = OnnxClassifier(bundle, threads=1)
    data = encode_png(paint("Basophil"))
    asked = 0

    def sources() -> Iterator[Source]:
        nonlocal asked
        for number in range(1000):
            asked = number + 1
            # Most are rejected, which takes no time.
            yield bytes_source(f"{number}.png", data if number % 100 == 0 else b"junk")

    ahead = []
    answers = explained(
        classifier, sources(), tmp_path, threads=1, reporter=Reporter(say=pytest.fail)
    )
    for number, _ in enumerate(answers, 1):
        ahead.append(asked - number)
    assert number == 1000
    assert max(ahead) <= 150


def test_a_file_that_changes_or_goes_is_said(
    tiny_classifier: OnnxClassifier, tmp_path: Path, remarks: list[str]
) -> None:
    first, second = (encode_png(paint("Basophil", seed=n)) for n in (1, 2))
    changing = iter([first, second])
    going = iter([first])
    (tmp_path / "gone.png").write_bytes(first)

    def go() -> bytes:
        for data in going:
            return data
        return file_source(tmp_path / "nowhere.png").read()

    sources = [called("changing.png", lambda: next(changing)), called("going.png", go)]
    rows = list(
        explained(tiny_classifier, sources, tmp_path / "out", reporter=Reporter(say=remarks.append))
    )
    assert [row.label for row in rows] == ["Basophil", "Basophil"]
    assert [remark.split(" (")[0] for remark in remarks] == [
        "Not explained: changing.png",
        "Not explained: going.png",
    ]
    assert "changed while it was read" in remarks[0]
    assert "cannot be read" in remarks[1]
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


# -------------------------------------------------------------------- the command line


@pytest.mark.slow
def test_folders_archives_lists_and_standard_input(
    leuko: Callable[..., Any], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write_picture(tmp_path / f"in/{d}/a.png", CLASSES[d], seed=d) for d in range(3)]
    (tmp_path / "in/bad.jpg").write_bytes(b"junk")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for file in files:
            archive.write(file, str(file.relative_to(tmp_path)))
    (tmp_path / "in.txt").write_text("\n".join(map(str, files)))
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(map(str, files))))
    wanted = ["a-2.explained.png", "a-3.explained.png", "a.explained.png"]
    pictures = []
    for number, images in enumerate(
        [tmp_path / "in", tmp_path / "in.zip", tmp_path / "in.txt", "-"]
    ):
        out = tmp_path / f"out{number}"
        result = leuko("predict", images, "--model", tiny_model, "--explain", out)
        assert result.code == 0, result.err
        assert " images: 3 accepted" in result.err
        assert sorted(path.name for path in out.iterdir()) == wanted
        pictures.append([(out / name).read_bytes() for name in wanted])
    assert pictures[0] == pictures[1] == pictures[2] == pictures[3]


def test_together_with_everything_else(
    leuko: Callable[..., Any], tiny_model: Path, tmp_path: Path
) -> None:
    for n in range(3):
        write_picture(tmp_path / f"in/{n}.png", CLASSES[n], seed=n)
    common = ("predict", tmp_path / "in", "--model", tiny_model, "--json")
    plain = leuko(*common, "--csv", tmp_path / "plain.csv")
    result = leuko(*common, "--csv", tmp_path / "a.csv", "--picture", tmp_path / "a.png",
                   "--explain", tmp_path / "heat", "--workers", 2)  # fmt: skip
    assert (result.code, result.out) == (0, plain.out)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert len(list((tmp_path / "heat").iterdir())) == 3


def test_folders_that_cannot_be_used(
    leuko: Callable[..., Any], tiny_model: Path, tmp_path: Path
) -> None:
    write_picture(tmp_path / "in/1.png", "Basophil")
    (tmp_path / "file").write_text("in the way")
    common = ("predict", tmp_path / "in", "--model", tiny_model, "--csv", tmp_path / "a.csv")
    inside = leuko(*common, "--explain", tmp_path / "in/heat")
    assert (inside.code, inside.out) == (2, "")
    assert "lies inside" in inside.err
    blocked = leuko(*common, "--explain", tmp_path / "file/heat")
    assert blocked.code == 1
    assert "a file stands where a folder is needed" in blocked.err
    assert not (tmp_path / "a.csv").exists()
    for result in (inside, blocked):
        assert len(result.err.strip().splitlines()) == 1


def test_a_folder_without_permission(tiny_classifier: OnnxClassifier, tmp_path: Path) -> None:
    source = file_source(write_picture(tmp_path / "1.png", "Basophil"))
    locked = tmp_path / "locked"
    locked.mkdir()
    open_to_all(tmp_path)
    locked.chmod(0o555)
    with unprivileged(), pytest.raises(OutputError, match="permission is denied"):
        list(explained(tiny_classifier, [source], locked, reporter=Reporter(say=pytest.fail)))
    assert list(locked.iterdir()) == []
