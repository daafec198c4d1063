"""What a folder or a table of labelled images says, and what is wrong with it."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from five import CLASSES
from leuko.data.reading import find_layout, find_splits, read_csv, read_folder, read_split
from leuko.errors import DataError
from leuko.imaging.decode import encode_png
from leuko.manifest import Manifest
from leuko.scheme import load_scheme
from leuko.support.artifacts import digest_file
from leuko.support.files import mark_own_picture
from tiny import open_to_all, paint, unprivileged, write_dataset, write_picture


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# Folders


def test_a_plain_folder(tmp_path: Path) -> None:
    write_dataset(tmp_path, each=3, slides=2)
    manifest = read_folder(tmp_path)
    assert manifest.root == tmp_path.resolve()
    assert manifest.counts.tolist() == [3] * 5
    assert manifest.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert manifest.slides[:3] == ["95-8-1-1", "95-8-1-1", "95-8-2-1"]
    assert [s.path for s in manifest.samples] == sorted(s.path for s in manifest.samples)
    assert manifest.samples[0].sha256 == digest_file(manifest.files()[0])
    assert manifest.notes == ()


@pytest.mark.parametrize(
    "names",
    [
        ("basophils", "EOSINOPHIL", "Lymphocytes", "mono", "NEUT"),
        ("1_Basophil", "2_Eosinophil", "3-lymphocyte", "4. Monocytes", "5 neutrophils"),
    ],
)
def test_names_decide_the_class_never_their_order(names: tuple[str, ...], tmp_path: Path) -> None:
    for label, name in enumerate(names):
        for number in range(label + 1):
            touch(tmp_path / name / f"{number}_a.jpg")
    assert read_folder(tmp_path).counts.tolist() == [1, 2, 3, 4, 5]


def test_folders_of_no_known_scheme_are_a_scheme_of_their_own(tmp_path: Path) -> None:
    for name in ("z", "y", "细胞"):
        touch(tmp_path / name / "1.jpg")
    manifest = read_folder(tmp_path)
    assert manifest.scheme.names == ("y", "z", "细胞")
    assert manifest.notes[0].endswith("has its own classes: y, z, 细胞. --classes names others.")
    manifest.save(tmp_path / "m.json")
    assert Manifest.load(tmp_path / "m.json") == manifest
    assert find_splits(tmp_path) == {"train": tmp_path.resolve()}
    five = load_scheme("differential-5")
    with pytest.raises(DataError, match="no class folders; found y, z, 细胞"):
        read_folder(tmp_path, scheme=five)


def test_folders_of_a_known_scheme_are_of_it(tmp_path: Path) -> None:
    for name in ("Monocyte", "ImmatureGranulocyte", "platelets", "Erythroblast"):
        touch(tmp_path / name / "1.jpg")
    manifest = read_folder(tmp_path)
    assert manifest.scheme == load_scheme("pbc-8")
    assert manifest.counts.tolist() == [0, 0, 1, 1, 0, 1, 0, 1]
    with pytest.raises(DataError, match=r"needs all 8 classes of pbc-8; .* no image of Basophil"):
        manifest.require_all_classes("Training")


def test_an_extra_folder_is_an_error_unless_ignored(tmp_path: Path) -> None:
    write_dataset(tmp_path, each=1)
    touch(tmp_path / "Junk" / "a.jpg")
    with pytest.raises(DataError, match=r"name no class: Junk.*--ignore NAME.*--classes folders"):
        read_folder(tmp_path)
    assert len(read_folder(tmp_path, ignore=("Junk",))) == 5


def test_two_folders_for_one_class(tmp_path: Path) -> None:
    for name in ("Neutrophil", "neutrophils"):
        touch(tmp_path / name / "a.jpg")
    with pytest.raises(DataError, match=r"two folders for Neutrophil: Neutrophil and neutrophils"):
        read_folder(tmp_path)


@pytest.mark.parametrize("empty", [False, True])
def test_a_missing_class_is_a_note_and_an_error_for_training(empty: bool, tmp_path: Path) -> None:
    write_dataset(tmp_path, each=2, names=CLASSES[1:])
    if empty:
        (tmp_path / "Basophil").mkdir()
    manifest = read_folder(tmp_path)
    assert manifest.counts.tolist() == [0, 2, 2, 2, 2]
    assert manifest.labels.min() == 1  # nothing moves up
    assert f"{tmp_path.name} has no image of Basophil." in manifest.notes
    with pytest.raises(
        DataError, match=r"Training needs all five.*no image of Basophil.*BASO|baso"
    ):
        manifest.require_all_classes("Training")


def test_folders_that_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_folder(tmp_path / "nothing")
    with pytest.raises(DataError, match="is a file; a folder was expected"):
        read_folder(touch(tmp_path / "file"))
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        read_folder(tmp_path / ("x" * 300))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no class folders; found no folders"):
        read_folder(tmp_path / "empty")
    (tmp_path / "hollow" / "Monocyte").mkdir(parents=True)
    with pytest.raises(DataError, match="not one image"):
        read_folder(tmp_path / "hollow")


def test_a_tilde_in_a_name_is_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "~nobody-of-that-name", each=1)
    assert len(read_folder("~nobody-of-that-name")) == 5


def test_what_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path / "Basophil" / "a_1.jpg")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", ".leuko-12.tmp", ".cache/b.jpg"):
        touch(tmp_path / "Basophil" / name)
    touch(tmp_path / ".git" / "x")
    touch(tmp_path / "README.txt")
    touch(tmp_path / "Basophil" / "patient 2" / "b_1.jpg")
    touch(tmp_path / "@eaDir" / "Basophil" / "SYNOFILE_THUMB_M.jpg")
    touch(tmp_path / "Basophil" / "@eaDir" / "a_1.jpg" / "SYNOFILE_THUMB_M.jpg")
    touch(tmp_path / "Basophil" / "sheet.png", mark_own_picture(encode_png(paint("Basophil"))))
    manifest = read_folder(tmp_path)
    paths = [sample.path for sample in manifest.samples]
    assert paths == ["Basophil/a_1.jpg", "Basophil/patient 2/b_1.jpg"]
    assert manifest.notes[0] == (
        "Passed over, as no pictures of cells: 2 x @eaDir, a NAS's thumbnails; 1 x thumbnails; "
        "1 x a desktop's notes; 1 x pictures that Leuko drew."
    )


def numbered(root: Path, name: str) -> list[str]:
    """Folders 1 to 5, and the lines of a table that says the same."""
    files = [touch(root / str(n) / name.format(n)) for n in range(1, 6)]
    return [f"{file.relative_to(root)},{file.parent.name}" for file in files]


@pytest.mark.parametrize("name", ["95-8-22-3_2{}_1.jpg", "20190527_11301{}_0.jpg"])
def test_raabins_numbers_are_read_where_the_files_are_raabins(name: str, tmp_path: Path) -> None:
    lines = numbered(tmp_path, name)
    (tmp_path / "l.csv").write_text("\n".join(["path,label", *lines]))
    for place, manifest in ((tmp_path, read_folder(tmp_path)),
                            (tmp_path / "l.csv", read_csv(tmp_path / "l.csv"))):  # fmt: skip
        assert [CLASSES[s.label] for s in manifest.samples] == [
            "Neutrophil", "Lymphocyte", "Monocyte", "Eosinophil", "Basophil"]  # fmt: skip
        assert manifest.notes[0] == (
            f"{place} names classes by numbers, read as Raabin-WBC's, as its files are: 1 as "
            "Neutrophil, 2 as Lymphocyte, 3 as Monocyte, 4 as Eosinophil, 5 as Basophil."
        )


@pytest.mark.parametrize("shift", [0, 1])
def test_numbers_that_may_mean_several_classes_are_refused(shift: int, tmp_path: Path) -> None:
    # As LabelEncoder counts, from 0 or from 1.
    for label, name in enumerate(CLASSES):
        touch(tmp_path / str(label + shift) / f"S0{label}_{name}_1.jpg")
    lines = [f"{file.relative_to(tmp_path)},{file.parent.name}" for file in tmp_path.rglob("*.jpg")]
    (tmp_path / "l.csv").write_text("\n".join(["path,label", *lines]))
    for read, place in ((read_folder, tmp_path), (read_csv, tmp_path / "l.csv")):
        with pytest.raises(DataError, match="may mean several classes: Raabin-WBC counts 1 Neut"):
            read(place)
    split = tmp_path / "data" / "Train"
    split.parent.mkdir()
    (tmp_path / "l.csv").unlink()
    (tmp_path / str(shift)).rename(split.parent / "x")
    with pytest.raises(DataError, match="Write names in their place: Basophil, Eosinophil"):
        read_folder(tmp_path, ignore=["data"])


def test_a_folder_of_another_class_within_one_is_said(tmp_path: Path) -> None:
    write_dataset(tmp_path, each=2, slides=2)
    touch(tmp_path / "Neutrophil" / "Monocyte" / "95-8-1-1_3_1.jpg")
    touch(tmp_path / "Neutrophil" / "neutrophils" / "95-8-1-1_4_1.jpg")
    manifest = read_folder(tmp_path)
    assert manifest.counts.tolist() == [2, 2, 2, 2, 4]
    assert manifest.notes == (
        "Neutrophil/Monocyte names another class than the folder that it lies in; its images are "
        "read as Neutrophil.",
    )


def test_folders_beside_train_and_test_are_named(tmp_path: Path) -> None:
    for name in ("Train", "TestA"):
        write_dataset(tmp_path / name, each=2, slides=2)
    touch(tmp_path / "masks" / "a.png")
    assert find_layout(tmp_path).notes == ()
    touch(tmp_path / "TestB" / "Monocyte" / "95-8-1-1_3_1.jpg")
    assert read_split(tmp_path, "train").notes == ("TestB is not read, only Train and TestA.",)
    touch(tmp_path / "TEST_SIMPLE" / "NEUTROPHIL" / "95-8-1-1_3_1.jpg")
    assert find_layout(tmp_path).notes == (
        "TEST_SIMPLE and TestB are not read, only Train and TestA.",
    )
    assert find_layout(tmp_path / "Train").notes == ()


def test_a_table_from_windows(tmp_path: Path) -> None:
    touch(tmp_path / "d" / unicodedata.normalize("NFD", "zä.jpg"))
    text = 'path,label\r\n"d\\zä.jpg",Monocyte\r\n'
    (tmp_path / "l.csv").write_bytes(text.encode("utf-16"))
    (sample,) = read_csv(tmp_path / "l.csv").samples
    assert sample.sha256 == digest_file(next((tmp_path / "d").iterdir()))


def test_links_are_followed_once_and_what_cannot_be_followed_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "Basophil"
    touch(folder / "a_1.jpg")
    touch(tmp_path / "elsewhere" / "b_1.jpg")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(tmp_path / "gone.jpg")
    (folder / "self.jpg").symlink_to(folder / "self.jpg")
    os.mkfifo(folder / "pipe.jpg")
    manifest = read_folder(tmp_path / "set")
    assert [s.path for s in manifest.samples] == ["Basophil/a_1.jpg", "Basophil/more/b_1.jpg"]
    said = " ".join(manifest.notes)
    assert "Basophil/round is a link to a folder already read" in said
    assert "Basophil/gone.jpg is a dangling link" in said
    assert "Basophil/self.jpg is a dangling link" in said
    assert "Basophil/pipe.jpg is not an ordinary file" in said
    assert str(tmp_path) not in said


def test_a_class_link_that_leads_nowhere_is_said(tmp_path: Path) -> None:
    write_dataset(tmp_path, each=1, names=CLASSES[1:])
    (tmp_path / "Basophil").symlink_to("nowhere")
    (tmp_path / "Junk").symlink_to("nowhere")
    (tmp_path / ".hidden").symlink_to("nowhere")
    manifest = read_folder(tmp_path, ignore=("Junk",))
    assert manifest.counts.tolist() == [0, 1, 1, 1, 1]
    assert manifest.notes == (
        "Basophil is a dangling link (No such file or directory); passed over.",
        f"{tmp_path.name} has no image of Basophil.",
    )
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "Basophil").symlink_to("nowhere")
    for read in (read_folder, find_splits):
        with pytest.raises(DataError, match="Basophil is a dangling link"):
            read(tmp_path / "links")


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    touch(tmp_path / "store" / "a_1.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "Neutrophils").symlink_to(tmp_path / "store")
    assert read_folder(tmp_path / "set").samples[0].path == "Neutrophils/a_1.jpg"


@pytest.mark.slow
def test_a_very_deep_folder(tmp_path: Path) -> None:
    deep = tmp_path / "Monocyte"
    for _ in range(1200):  # deeper than Python's stack
        deep /= "d"
    for place in [*[*reversed(deep.parents)][len(tmp_path.parts) :], deep]:
        place.mkdir()
    touch(deep / "a_1.jpg")
    manifest = read_folder(tmp_path)
    assert len(manifest) == 1
    for place in (deep / "a_1.jpg", deep, *deep.parents):  # what tidies up would recurse
        if place == tmp_path:
            break
        place.rmdir() if place.is_dir() else place.unlink()


def test_a_folder_without_permission(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    root = write_dataset(tmp_path / "set", each=1)
    root.chmod(0o755)
    for place in root.rglob("*"):
        place.chmod(0o755)
    (root / "Basophil").chmod(0)
    next((root / "Monocyte").iterdir()).chmod(0)
    with unprivileged():
        manifest = read_folder(root)
    assert manifest.counts.tolist() == [0, 1, 1, 1, 1]
    assert "Basophil cannot be listed (Permission denied); passed over." in manifest.notes
    assert [s.sha256 == "" for s in manifest.samples] == [False, False, True, False]
    root.chmod(0o644)  # can be listed, cannot be entered
    with unprivileged(), pytest.raises(DataError, match=r"Basophil cannot be read \(Permission"):
        read_folder(root)
    root.chmod(0o600)
    with unprivileged(), pytest.raises(DataError):
        read_folder(root)
    root.chmod(0)
    with unprivileged(), pytest.raises(DataError, match="cannot be read: Permission denied"):
        read_folder(root)
    root.chmod(0o755)


@pytest.mark.parametrize("name", ["ß_细胞.jpg", "a b_ü.jpg", "😀_1.jpg", "zelle_\udce4.jpg"])
def test_any_file_name(name: str, tmp_path: Path) -> None:
    touch(tmp_path / "Basophil" / name)
    manifest = read_folder(tmp_path)
    assert manifest.samples[0].path == f"Basophil/{name}"
    manifest.save(tmp_path / "manifest.json")
    assert Manifest.load(tmp_path / "manifest.json") == manifest


# Splits


@pytest.mark.parametrize(
    ("train", "test"),
    [("Train", "Test"), ("train", "test-a"), ("TRAINING", "TestA"), ("train data", "Test_A")],
)
def test_splits_have_many_names(train: str, test: str, tmp_path: Path) -> None:
    for name in (train, test, "val"):
        write_dataset(tmp_path / name, each=1)
    splits = find_splits(tmp_path)
    assert {split: path.name for split, path in splits.items()} == {
        "train": train,
        "validation": "val",
        "test": test,
    }
    manifest = read_split(tmp_path, "test")
    assert {sample.split for sample in manifest.samples} == {"test"}
    assert manifest.digest == read_folder(tmp_path / test).digest


def test_a_split_that_is_a_link_and_leads_nowhere_is_said(tmp_path: Path) -> None:
    write_dataset(tmp_path / "Train", each=1)
    (tmp_path / "Test").symlink_to("nowhere")
    assert sorted(find_splits(tmp_path)) == ["test", "train"]
    with pytest.raises(DataError, match="Test is a link that leads nowhere"):
        read_split(tmp_path, "test")
    said = "Test is a dangling link (No such file or directory); passed over."
    assert read_split(tmp_path, "train").notes == (said,)
    # A folder that is there is taken, whatever else is called so.
    write_dataset(tmp_path / "TestA", each=1)
    assert find_splits(tmp_path)["test"].name == "TestA"
    assert read_split(tmp_path, "test").notes == (said,)


def test_a_lost_test_link_beside_class_folders(tmp_path: Path) -> None:
    write_dataset(tmp_path, each=1)
    (tmp_path / "Test").symlink_to("nowhere")
    assert find_splits(tmp_path)["train"] == tmp_path.resolve()
    assert read_split(tmp_path, "train").notes == (
        "Test is a dangling link (No such file or directory); passed over.",
    )


def test_two_test_folders(tmp_path: Path) -> None:
    for name in ("Test", "TestA"):
        write_dataset(tmp_path / name, each=1)
    with pytest.raises(DataError, match="several test folders: Test, TestA"):
        find_splits(tmp_path)


def test_class_folders_alone_are_for_training(tmp_path: Path) -> None:
    write_dataset(tmp_path, each=1)
    assert find_splits(tmp_path) == {"train": tmp_path.resolve()}
    with pytest.raises(DataError, match="no test folder; found train"):
        read_split(tmp_path, "test")


def test_neither_splits_nor_classes(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(
        DataError, match="neither Train/Test folders nor class folders; found image"
    ):
        find_splits(tmp_path)
    with pytest.raises(DataError, match="found no folders at all"):
        find_splits(tmp_path / "images")


# Tables


def table(tmp_path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    for name in CLASSES:
        write_picture(tmp_path / "cells" / f"{name}_1.png", name)
    (tmp_path / "labels.csv").write_text(text, encoding=encoding)
    return tmp_path / "labels.csv"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table(encoding: str, end: str, tmp_path: Path) -> None:
    lines = [
        "Path, LABEL ,slide",
        "cells/Neutrophil_1.png,NEUT,S2",
        "cells/Basophil_1.png,basophils,",
        "",
    ]
    manifest = read_csv(table(tmp_path, end.join(lines), encoding=encoding))
    assert [(s.path, s.label, s.slide) for s in manifest.samples] == [
        ("cells/Basophil_1.png", 0, ""),
        ("cells/Neutrophil_1.png", 4, "S2"),
    ]
    assert manifest.files()[0].is_file()
    assert manifest.samples[1].sha256 == digest_file(tmp_path / "cells" / "Neutrophil_1.png")


def test_another_column_may_have_the_labels_and_a_split_is_honoured(tmp_path: Path) -> None:
    text = "path,label,fine_label,split\na.png,Neutrophil,band,train\nb.png,Neutrophil,seg,val\n"
    manifest = read_csv(table(tmp_path, text), label_column="fine_label")
    assert manifest.scheme.name == "differential-6"
    assert [sample.split for sample in manifest.samples] == ["train", "validation"]
    with pytest.raises(DataError, match="line 2: the split is 'both'; expected train, val or test"):
        read_csv(table(tmp_path, "path,label,split\na.png,baso,both\n"))
    with pytest.raises(DataError, match="lacks the column kind; expected path,kind"):
        read_csv(table(tmp_path, text), label_column="kind")


def test_without_a_slide_column_the_name_tells(tmp_path: Path) -> None:
    manifest = read_csv(table(tmp_path, "path,label\ncells/S7_1.png,mono\n"))
    assert manifest.slides == ["S7"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column label and path; .* received nothing"),
        ("path,class\n", "lacks the column label; expected path,label with commas"),
        ("path;label;slide\n", "received path;label;slide"),
        ("path,label\n", "a header but no rows"),
        ("path,label\na.jpg,Basophil\nb.jpg,junk\n", "line 3: 'junk' names no class"),
        ("path,label\n\n\na.jpg,x\n", "line 4: 'x' names no class"),
        ("path,label\na.jpg\n", "line 2: '' names no class"),
        ("path,label\n ,Basophil\n", "line 2: there is no path"),
        ("path,label\na.jpg,baso\n./a.jpg,baso\n", "line 3: ./a.jpg is listed twice"),
        ("path,label\na.jpg," + "x" * 200_000 + "\n", "cannot be read as CSV: field larger"),
    ],
)
def test_faulty_tables(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_csv(table(tmp_path, text))


def test_a_table_that_is_none(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.csv", tmp_path):
        with pytest.raises(DataError, match="cannot be read as CSV"):
            read_csv(path)
    latin = touch(tmp_path / "latin.csv", "path,label\nä.jpg,baso\n".encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_csv(latin)


def test_missing_files_are_left_to_the_reader(tmp_path: Path) -> None:
    text = "path,label\nnothing.jpg,baso\nnul\0.jpg,baso\ncells,baso\n"
    assert [s.sha256 for s in read_csv(table(tmp_path, text)).samples] == ["", "", ""]


def test_augmented_copies_and_unknown_slides_are_said(tmp_path: Path) -> None:
    for name in ("066.jpg", "aug_1_95-1-1-1_3_1.jpg", "95-1-1-1_3_1.jpg"):
        touch(tmp_path / "Basophil" / name, name.encode())
    said = " ".join(read_folder(tmp_path).notes)
    assert "holds 1 augmented copies" in said
    assert "1 of 3 file names tell no slide" in said
