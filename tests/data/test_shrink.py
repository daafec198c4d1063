"""A smaller copy: the same names, fewer pixels, nothing lost."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from leuko.data.reading import read_folder, read_split
from leuko.data.shrink import SOURCES, shrink_dataset
from leuko.errors import DataError, OutputError
from leuko.imaging.decode import encode_jpeg, read_image
from leuko.manifest import Manifest
from leuko.support.artifacts import TEMPORARY_PREFIX, digest_file
from leuko.support.reporter import Reporter
from tiny import write_dataset, write_picture


def test_a_data_set_is_shrunk(tmp_path: Path) -> None:
    for split in ("Train", "Test"):
        write_dataset(tmp_path / "set" / split, each=2, suffix=".png")
    large = np.full((60, 90, 3), (10, 200, 90), np.uint8)
    (tmp_path / "set" / "Train" / "Monocyte" / "95-1-1-1_7_1.jpg").write_bytes(encode_jpeg(large))
    told: list[tuple[str, int, int]] = []
    report = shrink_dataset(
        tmp_path / "set",
        tmp_path / "small",
        size=30,
        reporter=Reporter(lambda *now: told.append(now)),
    )
    assert (report.written, report.kept, report.rejected) == (21, 0, ())
    assert told[-1] == ("shrinking", 21, 21)
    small = read_image(tmp_path / "small" / "Train" / "Monocyte" / "95-1-1-1_7_1.jpg")
    assert small.pixels.shape == (20, 30, 3)
    np.testing.assert_allclose(small.pixels.mean(axis=(0, 1)), (10, 200, 90), atol=3)
    for split in ("train", "test"):
        before, after = read_split(tmp_path / "set", split), read_split(tmp_path / "small", split)
        assert after.slides == before.slides
        assert after.labels.tolist() == before.labels.tolist()


def test_small_pictures_are_not_enlarged(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", each=1)
    shrink_dataset(tmp_path / "set", tmp_path / "small", size=288)
    assert read_image(read_folder(tmp_path / "small").files()[0]).pixels.shape == (32, 40, 3)


def test_an_interrupted_copy_is_finished_with_the_same_bytes(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", each=2)
    shrink_dataset(tmp_path / "set", tmp_path / "a", size=20)
    shrink_dataset(tmp_path / "set", tmp_path / "b", size=20)
    gone = read_folder(tmp_path / "b").files()[3]
    gone.unlink()
    report = shrink_dataset(tmp_path / "set", tmp_path / "b", size=20)
    assert (report.written, report.kept) == (1, 9)
    assert read_folder(tmp_path / "a").digest == read_folder(tmp_path / "b").digest


def test_other_settings_do_not_mix_with_an_older_copy(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", each=1)
    shrink_dataset(tmp_path / "set", tmp_path / "small", size=20)
    with pytest.raises(OutputError, match="made with size 20, quality 85"):
        shrink_dataset(tmp_path / "set", tmp_path / "small", size=24)


def test_another_data_set_does_not_mix_with_an_older_copy(tmp_path: Path) -> None:
    write_dataset(tmp_path / "s1", each=2)
    shrink_dataset(tmp_path / "s1", tmp_path / "small", size=20)
    before = read_folder(tmp_path / "small").digest
    # Other names, though some are the same.
    write_dataset(tmp_path / "s2", each=2)
    gone = read_folder(tmp_path / "s2").files()[0]
    gone.rename(gone.with_name("95-9-9-9_1_1.jpg"))
    with pytest.raises(OutputError, match=rf"another data set: it has .*{gone.name}, and .*s2 "):
        shrink_dataset(tmp_path / "s2", tmp_path / "small", size=20)
    # The same names, and other pictures.
    for number, file in enumerate(read_folder(tmp_path / "s1").files()):
        place = tmp_path / "s3" / file.relative_to(tmp_path / "s1")
        write_picture(place, file.parent.name, seed=1000 + number)
    with pytest.raises(OutputError, match="another data set: not one image is that of"):
        shrink_dataset(tmp_path / "s3", tmp_path / "small", size=20)
    assert read_folder(tmp_path / "small").digest == before


def test_what_has_changed_is_shrunk_again_and_what_is_new_is_added(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "set", each=2)
    shrink_dataset(root, tmp_path / "small", size=20)
    mended, new = read_folder(root).files()[4], root / "Monocyte" / "95-7-7-7_1_1.png"
    write_picture(mended, "Basophil", seed=77)
    write_picture(new, "Monocyte", seed=78)
    report = shrink_dataset(root, tmp_path / "small", size=20)
    assert (report.written, report.kept) == (2, 9)
    shrink_dataset(root, tmp_path / "anew", size=20)
    digests = {read_folder(tmp_path / name).digest for name in ("small", "anew")}
    assert len(digests) == 1


def test_a_changed_image_is_made_again_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the copy is written down anew: the old file must not pass for the new one."""
    root = write_dataset(tmp_path / "set", each=1)
    shrink_dataset(root, tmp_path / "small", size=20)
    write_picture(read_folder(root).files()[2], "Basophil", seed=77)

    def killed(self: Manifest, path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Manifest, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            shrink_dataset(root, tmp_path / "small", size=20)
    report = shrink_dataset(root, tmp_path / "small", size=20)
    assert (report.written, report.kept) == (1, 4)


def test_the_copy_says_what_it_is_made_of(tmp_path: Path) -> None:
    for split in ("Train", "Test"):
        write_dataset(tmp_path / "set" / split, each=1, suffix=".png")
    shrink_dataset(tmp_path / "set", tmp_path / "small", size=20, quality=80)
    assert not SOURCES.startswith(TEMPORARY_PREFIX)  # whatever bears that may be deleted
    told = Manifest.load(tmp_path / "small" / SOURCES)
    assert told.notes == ("size 20, quality 80",)
    assert [*tmp_path.glob(f"small/{TEMPORARY_PREFIX}*")] == []
    for sample in told.samples:
        assert (tmp_path / "small" / sample.path).is_file()
        source = tmp_path / "set" / Path(sample.path).with_suffix(".png")
        assert sample.sha256 == digest_file(source)
    (tmp_path / "small" / SOURCES).write_text("{}")
    with pytest.raises(OutputError, match=r"not a manifest document.*delete"):
        shrink_dataset(tmp_path / "set", tmp_path / "small", size=20, quality=80)


def test_files_that_nothing_is_known_of_are_left_alone(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "set", each=1)
    shrink_dataset(root, tmp_path / "small", size=20)
    (tmp_path / "small" / SOURCES).unlink()
    with pytest.raises(OutputError, match=r"is there already, and .* does not say"):
        shrink_dataset(root, tmp_path / "small", size=20)
    (tmp_path / "small" / ".leuko-shrink").write_text("size 20, quality 85\n")
    with pytest.raises(OutputError, match="made by an earlier Leuko"):
        shrink_dataset(root, tmp_path / "small", size=20)
    assert len(read_folder(tmp_path / "small")) == 5


def test_two_files_of_one_stem_both_arrive(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "Basophil"
    write_picture(folder / "95-1-1-1_1_1.jpg", "Basophil", seed=1)
    write_picture(folder / "95-1-1-1_1_1.png", "Neutrophil", seed=2)
    (folder / "95-1-1-1_1_2.v2").write_bytes((folder / "95-1-1-1_1_1.png").read_bytes())
    report = shrink_dataset(tmp_path / "set", tmp_path / "small", size=20)
    assert report.written == 3
    names = [Path(s.path).name for s in read_folder(tmp_path / "small").samples]
    assert names == ["95-1-1-1_1_1.jpg", "95-1-1-1_1_1.png.jpg", "95-1-1-1_1_2.v2.jpg"]


def test_bad_files_are_listed(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", each=1)
    (tmp_path / "set" / "Basophil" / "notes.txt").write_text("hello")
    (tmp_path / "set" / "Basophil" / "gone.png").symlink_to("nowhere")
    report = shrink_dataset(tmp_path / "set", tmp_path / "small")
    assert report.written == 5
    assert [(Path(one.path).name, one.reason) for one in report.rejected] == [
        ("notes.txt", "not-an-image")
    ]
    assert [note for note in report.notes if "gone.png is a dangling link" in note]


def test_a_split_may_be_a_link(tmp_path: Path) -> None:
    write_dataset(tmp_path / "elsewhere", each=1)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "Train").symlink_to(tmp_path / "elsewhere")
    assert shrink_dataset(tmp_path / "set", tmp_path / "small").written == 5
    assert len(read_folder(tmp_path / "small" / "Train")) == 5


def test_where_a_copy_may_not_go(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "set", each=1)
    for out in (root, root / "small"):
        with pytest.raises(OutputError, match="choose a folder outside it"):
            shrink_dataset(root, out)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="a file stands where a folder is needed"):
        shrink_dataset(root, tmp_path / "file")
    with pytest.raises(DataError, match="does not exist"):
        shrink_dataset(tmp_path / "nothing", tmp_path / "small")
    assert sorted(os.listdir(root)) == sorted(p.name for p in root.iterdir() if p.is_dir())
