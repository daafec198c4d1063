from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest

import leuko
from drawn_cells import drawn
from five import CLASSES
from leuko.data.balance.augmentation import Augmentation, augment_pixels, augmentation
from leuko.data.balance.order import balanced_order, copy_numbers
from leuko.data.balance.plan import plan_balance, sample_key
from leuko.data.balance.write import PLAN_FILE, JpegStyle, write_balanced
from leuko.data.reading import read_csv, read_folder
from leuko.errors import DataError, OutputError, UsageError
from leuko.imaging.decode import decode_image, encode_jpeg, encode_png, read_image
from leuko.manifest import Manifest, Sample, slide_of
from leuko.render.balance import format_balance
from leuko.support.reporter import Reporter

COUNTS = (2, 3, 4, 3, 8)


def picture(seed: int, side: int = 40) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)


def make_train(folder: Path, counts=COUNTS) -> Path:
    for label, (name, n) in enumerate(zip(CLASSES, counts, strict=True)):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            data = encode_jpeg(picture(100 * label + i), quality=90, subsampling="420")
            (folder / name / f"95-8-{label}-1_{i}_1.jpg").write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return make_train(tmp_path / "Dataset" / "Train")


# The augmentation


def test_parameters_cover_the_published_ranges_and_are_uniform():
    draws = [augmentation(7, n, "Basophil/a.jpg") for n in range(4000)]
    values = np.array([[d.rotation, d.zoom_rows, d.zoom_columns, d.flip] for d in draws])
    for column, (low, high) in enumerate(((-15, 15), (0.9, 1.1), (0.9, 1.1))):
        assert low <= values[:, column].min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values[:, column].max() <= high
        histogram = np.histogram(values[:, column], bins=10, range=(low, high))[0]
        assert histogram.min() > 320  # 400 expected, standard deviation 19
        assert histogram.max() < 480
    assert 0.46 < values[:, 3].mean() < 0.54
    # Row and column zoom are drawn apart.
    assert abs(np.corrcoef(values[:, 1], values[:, 2])[0, 1]) < 0.06


def test_parameters_are_fixed_for_good():
    # Worked out with hashlib alone; a change here changes every balanced folder ever written.
    text = b"leuko.augmentation/1\n5\n2\nBasophil/a.jpg"
    drawn = hashlib.blake2b(text, digest_size=32).digest()
    first = (int.from_bytes(drawn[:8], "little") >> 11) / 2**53
    got = augmentation(5, 2, "Basophil/a.jpg")
    assert got.rotation == 30 * first - 15
    assert len({augmentation(s, n, o) for s in (0, 1) for n in (1, 2) for o in ("a", "b")}) == 8


def test_no_change_leaves_pixels_and_a_mirror_image_is_exact():
    pixels = picture(1)[:30]
    assert np.array_equal(augment_pixels(pixels, Augmentation(0, 1, 1, False)), pixels)
    assert np.array_equal(augment_pixels(pixels, Augmentation(0, 1, 1, True)), pixels[:, ::-1])


@pytest.mark.parametrize("flip", [False, True])
def test_warp_equals_scipy_with_keras_matrix(flip):
    ndimage = pytest.importorskip("scipy.ndimage")
    pixels = picture(3, 64)[:48]
    parameters = Augmentation(11.0, 0.93, 1.08, flip)
    angle = np.deg2rad(11.0)
    # Keras's apply_affine_transform, after its exchange of axes: rows first.
    linear = np.array(
        [
            [np.cos(angle) * 0.93, np.sin(angle) * 1.08],
            [-np.sin(angle) * 0.93, np.cos(angle) * 1.08],
        ]
    )
    centre = np.array([(48 - 1) / 2, (64 - 1) / 2])
    expected = np.stack(
        [
            ndimage.affine_transform(
                pixels[..., c].astype(float), linear, centre - linear @ centre, order=1,
                mode="nearest",
            )
            for c in range(3)
        ],
        axis=-1,
    )  # fmt: skip
    if flip:
        expected = expected[:, ::-1]
    got = augment_pixels(pixels, parameters)
    difference = np.abs(got.astype(float) - expected)
    assert difference.mean() < 0.6  # OpenCV 4 rounds positions to 1/32 pixel
    assert np.quantile(difference, 0.999) < 8


def test_positive_rotation_is_counter_clockwise():
    pixels = np.zeros((101, 101, 3), np.uint8)
    pixels[48:53, 88:93] = 255  # right of the centre
    turned = augment_pixels(pixels, Augmentation(15, 1, 1, False))[..., 0]
    row, column = np.argwhere(turned > 128).mean(axis=0)
    assert row == pytest.approx(50 - 40 * np.sin(np.deg2rad(15)), abs=0.6)
    assert column == pytest.approx(50 + 40 * np.cos(np.deg2rad(15)), abs=0.6)


def test_warp_does_not_depend_on_opencv_threads_or_the_buffer():
    pixels, parameters = picture(9, 575), augmentation(0, 1, "a")
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        one = augment_pixels(pixels, parameters)
        cv2.setNumThreads(4)
        four = augment_pixels(pixels, parameters, out=np.full_like(pixels, 9))
    finally:
        cv2.setNumThreads(before)
    assert np.array_equal(one, four)


# The plan


def test_plan_evens_out_and_uses_originals_equally_often(train: Path):
    plan = plan_balance(read_folder(train), seed=3)
    assert plan.target == 8
    assert plan.originals.tolist() == list(COUNTS)
    assert plan.augmented.tolist() == [6, 5, 4, 5, 0]
    assert plan.total == 40
    for label in range(5):
        copies = [e.copies for e in plan.entries if e.sample.label == label]
        assert max(copies) - min(copies) <= 1
    names = [path for _, _, path in plan.files()]
    assert len(set(names)) == 40
    assert "Basophil/aug_3_95-8-0-1_1_1.jpg" in names
    assert {slide_of(name) for name in names} == {f"95-8-{i}-1" for i in range(5)}


def test_plan_depends_on_the_seed_and_not_on_the_place(train: Path, tmp_path: Path):
    manifest = read_folder(train)
    shutil.copytree(train, tmp_path / "elsewhere")
    there = plan_balance(read_folder(tmp_path / "elsewhere"), seed=1)
    assert there.digest == plan_balance(manifest, seed=1).digest
    digests = {plan_balance(manifest, seed=seed).digest for seed in range(8)}
    assert len(digests) == 8


@pytest.mark.slow
def test_raabin_counts_give_the_published_total():
    samples = [
        Sample(f"{name}/s{i}_{i}.jpg", label, f"s{i}", f"{label}-{i}")
        for label, (name, n) in enumerate(zip(CLASSES, (212, 744, 2427, 561, 6231), strict=True))
        for i in range(n)
    ]
    plan = plan_balance(Manifest(Path("Train"), tuple(samples)), seed=0)
    assert plan.total == 31_155
    assert {e.copies for e in plan.entries if e.sample.label == 0} == {28, 29}  # 6019 / 212


def test_target(train: Path):
    manifest = read_folder(train)
    assert plan_balance(manifest, seed=0, target=10).augmented.tolist() == [8, 7, 6, 7, 2]
    with pytest.raises(DataError, match="8 originals of Neutrophil"):
        plan_balance(manifest, seed=0, target=7)


def test_validation_test_and_balanced_rows_are_refused(train: Path, tmp_path: Path):
    manifest = read_folder(train)
    with pytest.raises(DataError, match="received test rows"):
        plan_balance(manifest.subset(range(len(manifest)), split="test"))
    with pytest.raises(DataError, match="received validation rows"):
        plan_balance(manifest.subset(range(len(manifest)), split="validation"))
    for name in ("Test", "test-a", "TestB", "val", "Validation"):
        shutil.copytree(train, tmp_path / name)
        with pytest.raises(DataError, match="validation or test folder"):
            plan_balance(read_folder(tmp_path / name))
        shutil.rmtree(tmp_path / name)
    shutil.copytree(train, tmp_path / "Test")
    table = tmp_path / "table.csv"
    rows = [f"Test/{s.path},{CLASSES[s.label]}" for s in manifest.samples]
    table.write_text("path,label\n" + "\n".join(rows))
    with pytest.raises(DataError, match="lies in a validation or test"):
        plan_balance(read_csv(table))
    write_balanced(manifest, tmp_path / "Balanced_Train", workers=1)
    with pytest.raises(DataError, match="already balanced: 20 of its 40"):
        plan_balance(read_folder(tmp_path / "Balanced_Train"))


def test_missing_class_is_named(train: Path):
    shutil.rmtree(train / "Monocyte")
    with pytest.raises(DataError, match="Monocyte"):
        plan_balance(read_folder(train))


# The files


def test_originals_are_copies_and_draws_are_what_the_parameters_say(train: Path, tmp_path: Path):
    manifest = read_folder(train)
    out = tmp_path / "Dataset" / "Balanced_Train"
    report = write_balanced(manifest, out, seed=4, workers=2)
    assert (report.written, report.kept, report.rejected) == (40, 0, ())
    for sample in manifest.samples:
        copy = out / sample.path
        assert copy.read_bytes() == (train / sample.path).read_bytes()
        assert copy.stat().st_nlink == 1
    sample = manifest.samples[0]
    pixels = read_image(train / sample.path).pixels
    for n in (1, 2, 3):
        drawn = augment_pixels(pixels, augmentation(4, n, sample_key(sample, manifest.scheme)))
        file = out / "Basophil" / f"aug_{n}_{Path(sample.path).name}"
        assert file.read_bytes() == encode_jpeg(drawn, quality=95, subsampling="420")
    again = read_folder(out)
    assert again.counts.tolist() == [8] * 5
    document = json.loads((out / PLAN_FILE).read_text())
    assert document["schema"] == "leuko.balance/1"
    assert document["complete"] is True
    assert document["jpeg"] == {"quality": 95, "subsampling": "420"}
    assert str(tmp_path) not in (out / PLAN_FILE).read_text()
    assert report.document == document
    assert f"40 images in {out}: 40 written, 0 kept" in format_balance(report)
    assert report.to_dict()["images"] == 40


def test_bytes_do_not_depend_on_workers_but_on_the_seed(train: Path, tmp_path: Path):
    manifest = read_folder(train)
    folders = {}
    for workers, seed in ((1, 0), (2, 0), (7, 0), (2, 1)):
        out = tmp_path / f"out{workers}{seed}"
        write_balanced(manifest, out, seed=seed, workers=workers)
        folders[workers, seed] = contents(out)
    assert folders[1, 0] == folders[2, 0] == folders[7, 0]
    assert folders[1, 0] != folders[2, 1]


def test_dry_run_writes_nothing_and_counts_the_same(train: Path, tmp_path: Path):
    seen = []
    report = write_balanced(
        read_folder(train), tmp_path / "out", dry_run=True,
        reporter=Reporter(lambda stage, done, total: seen.append((stage, done, total))),
    )  # fmt: skip
    assert not (tmp_path / "out").exists()
    assert report.plan.total == 40
    assert seen[-1] == ("checking", 20, 20)
    assert "nothing was written" in format_balance(report)


def test_corrupt_originals_are_named_and_others_stand_in(train: Path, tmp_path: Path):
    good = (train / "Eosinophil" / "95-8-1-1_0_1.jpg").read_bytes()
    (train / "Eosinophil" / "95-8-1-1_1_1.jpg").write_bytes(good[: len(good) * 4 // 5])
    (train / "Neutrophil" / "95-8-4-1_5_1.jpg").write_bytes(b"")
    (train / "Monocyte" / "readme.txt").write_text("not an image")
    report = write_balanced(read_folder(train), tmp_path / "out", workers=2)
    assert {file.path: file.reason for file in report.rejected} == {
        "Eosinophil/95-8-1-1_1_1.jpg": "truncated",
        "Monocyte/readme.txt": "not-an-image",
        "Neutrophil/95-8-4-1_5_1.jpg": "empty-file",
    }
    assert report.plan.target == 7
    files = contents(tmp_path / "out")
    assert len(files) == 35 + 1
    assert not [name for name in files if "readme" in name or "95-8-1-1_1_1" in name]
    assert "skipped Monocyte/readme.txt: not-an-image" in format_balance(report)
    # The second call knows them from balance.json and finds nothing to do.
    again = write_balanced(read_folder(train), tmp_path / "out", workers=2)
    assert (again.written, again.kept, again.rejected) == (0, 35, report.rejected)
    assert again.document == report.document
    assert again.document["complete"]


def test_other_formats_and_names_that_meet(train: Path, tmp_path: Path):
    folder = train / "Basophil"
    (folder / "cell_1.png").write_bytes(encode_png(picture(1)))
    (folder / "cell_1.JPG").write_bytes(encode_jpeg(picture(2)))
    (folder / "CELL_1.jpeg").write_bytes(encode_jpeg(picture(3)))
    (folder / "deep").mkdir()
    (folder / "deep" / "cell_1.png").write_bytes(encode_png(picture(4)))
    report = write_balanced(read_folder(train), tmp_path / "out", workers=2, target=20)
    names = os.listdir(tmp_path / "out" / "Basophil")
    assert len({name.casefold() for name in names}) == 20
    assert {name for name in names if not name.startswith("aug_")} == {
        "95-8-0-1_0_1.jpg", "95-8-0-1_1_1.jpg",
        "CELL_1.jpeg", "cell_1~2.JPG", "cell_1~3.png", "cell_1~4.png",
    }  # fmt: skip
    assert (tmp_path / "out/Basophil/cell_1~4.png").read_bytes() == encode_png(picture(4))
    for name in names:
        if name.startswith("aug_"):
            assert Path(name).suffix in (".jpg", ".JPG", ".jpeg")
            assert decode_image((tmp_path / "out/Basophil" / name).read_bytes()).format == "JPEG"
    assert "aug_1_cell_1~3.jpg" in names
    assert any("another name" in note for note in report.notes)
    assert any("not called .jpg" in note for note in report.notes)


def test_other_plans_and_foreign_folders_are_refused(train: Path, tmp_path: Path):
    manifest = read_folder(train)
    out = tmp_path / "out"
    write_balanced(manifest, out, seed=0, workers=2)
    before = contents(out)
    with pytest.raises(DataError, match="other settings"):
        write_balanced(manifest, out, seed=1, workers=2)
    with pytest.raises(DataError, match="other settings"):
        write_balanced(manifest, out, seed=0, jpeg=JpegStyle(80), workers=2)
    assert contents(out) == before
    (out / "Basophil" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"mine\.jpg"):
        write_balanced(manifest, out, seed=0, workers=2)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(DataError, match=r"cat\.jpg"):
        write_balanced(manifest, tmp_path / "photos")
    for inside in (train, train / "Balanced", train.parent):
        with pytest.raises(DataError, match="lie inside"):
            write_balanced(manifest, inside)
    with pytest.raises(DataError, match="named like"):
        write_balanced(manifest, tmp_path / "Test")
    with pytest.raises(UsageError, match="quality"):
        JpegStyle(101)
    with pytest.raises(UsageError, match="'410'"):
        JpegStyle(subsampling="410")


def test_an_original_that_changes_meanwhile_stops_the_run(train: Path, tmp_path: Path):
    manifest = read_folder(train)
    (train / "Basophil" / "95-8-0-1_0_1.jpg").write_bytes(encode_jpeg(picture(77)))
    with pytest.raises(DataError, match="changed while"):
        write_balanced(manifest, tmp_path / "out", workers=2)


def test_empty_files_and_stale_temporaries_are_mended(train: Path, tmp_path: Path):
    manifest, out = read_folder(train), tmp_path / "out"
    write_balanced(manifest, out, workers=2)
    before = contents(out)
    (out / "Basophil" / "aug_1_95-8-0-1_0_1.jpg").write_bytes(b"")
    (out / "Neutrophil" / "95-8-4-1_0_1.jpg").unlink()
    (out / "Basophil" / ".leuko-0123456789ab.tmp").write_bytes(b"half")
    report = write_balanced(manifest, out, workers=2)
    assert (report.written, report.kept) == (2, 38)
    assert contents(out) == before


KILLER = """
    import itertools, os, signal, sys
    from leuko.data.reading import read_folder
    from leuko.data.balance.write import write_balanced
    train, out, k, moment = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    replace, calls = os.replace, itertools.count(1)
    def deadly(source, target):
        number = next(calls)
        if number == k and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if number == k:
            os.kill(os.getpid(), signal.SIGKILL)
    os.replace = deadly
    write_balanced(read_folder(train), out, workers=2)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_at_any_write_and_resumed_gives_the_same_bytes(train: Path, tmp_path: Path):
    manifest = read_folder(train)
    write_balanced(manifest, tmp_path / "whole", workers=1)
    expected = contents(tmp_path / "whole")
    environment = {**os.environ, "PYTHONPATH": str(Path(leuko.__file__).parents[1])}
    # 42 replacements: balance.json, 40 images, balance.json.
    for k, moment in ((1, "before"), (2, "before"), (19, "after"), (42, "before")):
        out = tmp_path / f"killed{k}"
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(KILLER), str(train), str(out), str(k), moment],
            env=environment, capture_output=True, check=False, timeout=120,
        )  # fmt: skip
        assert run.returncode == -signal.SIGKILL, run.stderr.decode()
        left = contents(out)
        assert all(left[name] == expected[name] for name in left if name in expected
                   and name != PLAN_FILE)  # fmt: skip
        write_balanced(manifest, out, workers=2)
        assert contents(out) == expected


FULL = """
    import resource, signal, sys
    from leuko.data.balance.write import write_balanced
    from leuko.errors import OutputError
    from leuko.data.reading import read_folder
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    manifest = read_folder(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
    try:
        write_balanced(manifest, sys.argv[2], workers=2)
    except OutputError as error:
        print(error)
        raise SystemExit(3)
"""


@pytest.mark.slow
def test_a_write_that_fails_leaves_no_half_file_and_can_go_on(train: Path, tmp_path: Path):
    pytest.importorskip("resource")
    manifest = read_folder(train)
    write_balanced(manifest, tmp_path / "whole", workers=1)
    expected = contents(tmp_path / "whole")
    # The largest file cannot be written whole; balance.json can.
    limit = max(p.stat().st_size for p in (tmp_path / "whole").rglob("*.jpg")) - 1
    assert (tmp_path / "whole" / PLAN_FILE).stat().st_size < limit
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL), str(train), str(tmp_path / "out"),
         str(limit)],
        env={**os.environ, "PYTHONPATH": str(Path(leuko.__file__).parents[1])},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert run.returncode == 3, run.stderr
    assert "cannot be written" in run.stdout
    left = contents(tmp_path / "out")
    assert not [name for name in left if ".leuko-" in name]
    assert all(left[name] == expected[name] for name in left if name != PLAN_FILE)
    write_balanced(manifest, tmp_path / "out", workers=2)
    assert contents(tmp_path / "out") == expected


def test_a_full_disk_is_said_and_the_run_goes_on_later(train: Path, tmp_path: Path):
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare here, so no small disk can be mounted")
    place = tmp_path / "disk"
    place.mkdir()
    script = tmp_path / "full.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from pathlib import Path
            from leuko.data.balance.write import write_balanced
            from leuko.errors import OutputError
            from leuko.data.reading import read_folder
            train, disk = Path(sys.argv[1]), Path(sys.argv[2])
            filler = disk / "filler"
            filler.write_bytes(bytes(170_000))
            try:
                write_balanced(read_folder(train), disk / "out", workers=2)
            except OutputError as error:
                assert "disk is full" in str(error), error
            else:
                raise SystemExit("the disk was not full")
            assert not list(disk.rglob(".leuko-*"))
            assert all(path.stat().st_size for path in (disk / "out").rglob("*.jpg"))
            filler.unlink()
            report = write_balanced(read_folder(train), disk / "out", workers=2)
            assert report.written + report.kept == 40
            print("went on with", report.kept)
            """
        )
    )
    command = f'mount -t tmpfs -o size=256k tmpfs "{place}" || exit 77; exec "$@"'
    run = subprocess.run(
        [unshare, "-rm", "sh", "-c", command, "sh", sys.executable, str(script), str(train),
         str(place)],
        env={**os.environ, "PYTHONPATH": str(Path(leuko.__file__).parents[1])},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if run.returncode == 77 or "unshare" in run.stderr:
        pytest.skip("mounting a small disk is not permitted here")
    assert run.returncode == 0, run.stderr + run.stdout
    assert "went on with" in run.stdout


def test_a_folder_that_cannot_be_written_is_one_sentence(train: Path, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file stands where a folder"):
        write_balanced(read_folder(train), tmp_path / "file")


# The order without files


def test_balanced_order_shows_classes_equally_and_originals_fairly():
    labels = np.repeat([0, 1, 4], [3, 7, 10])
    order = balanced_order(labels, seed=2, per_class=10)
    assert order.dtype == np.int64
    assert np.bincount(labels[order]).tolist() == [10, 10, 0, 0, 10]
    shown = np.bincount(order, minlength=20)
    assert sorted(shown[:3].tolist()) == [3, 3, 4]
    assert set(shown[3:10].tolist()) == {1, 2}
    assert set(shown[10:].tolist()) == {1}
    assert np.array_equal(order, balanced_order(labels, seed=2, per_class=10))
    assert not np.array_equal(order, balanced_order(labels, seed=3, per_class=10))


def test_balanced_order_with_fewer_showings_than_images():
    order = balanced_order([0] * 3 + [1] * 9, seed=0, per_class=4)
    assert np.bincount(np.repeat([0, 1], [3, 9])[order]).tolist() == [4, 4]
    assert np.bincount(order, minlength=12)[3:].max() == 1


def test_copy_numbers_count_showings():
    assert copy_numbers([]).tolist() == []
    order = balanced_order(np.repeat([0, 1], [2, 7]), seed=1, per_class=7)
    numbers = copy_numbers(order)
    seen: dict[int, int] = {}
    for index, number in zip(order.tolist(), numbers.tolist(), strict=True):
        assert number == seen.get(index, 0)
        seen[index] = number + 1


def test_originals_that_show_one_cell_are_said(tmp_path: Path):
    train = make_train(tmp_path / "Train")
    cell = drawn("Monocyte", 3).pixels
    for number, pixels in enumerate((cell, cell[:, ::-1])):
        encoded = encode_jpeg(np.ascontiguousarray(pixels))
        (train / "Monocyte" / f"95-8-1-1_9_{number}.jpg").write_bytes(encoded)
    manifest = read_folder(train)
    told = (
        f"1 of {len(manifest)} originals show the same cell as another; each is kept and counts "
        "for its class."
    )
    for _ in range(2):  # made, and found made
        assert told in write_balanced(manifest, tmp_path / "out", workers=1).notes
