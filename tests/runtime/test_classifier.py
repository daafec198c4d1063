"""A bundle that answers: the same for one image whoever its neighbours are."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import leuko
from called import called
from five import CLASSES
from leuko.bundle import ModelBundle
from leuko.classifier import Classifier
from leuko.errors import BundleError, DataError, DeviceError, ImageError, UsageError
from leuko.imaging.decode import decode_image, encode_jpeg, encode_png
from leuko.imaging.preprocess import PreprocessSpec
from leuko.prediction import PredictionTable
from leuko.runtime.classifier import PART, OnnxClassifier, make_goldens, part_of
from leuko.runtime.network.session import BATCH
from leuko.runtime.sources import expand
from leuko.runtime.zoo import load
from leuko.source import Source, bytes_source
from leuko.support.artifacts import digest_bytes
from tiny import COLOURS, SIDE, paint, write_picture

AHEAD = 2 + 2 + 4 + 4 + 8
"""What two threads may have read before the third answer is taken; parts are small at first."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Forty files, each class in turn."""
    folder = tmp_path_factory.mktemp("pictures")
    return [
        write_picture(folder / f"{n:02}{'.png' if n % 3 else '.jpg'}", CLASSES[n % 5], seed=n)
        for n in range(40)
    ]


def softmax_by_hand(pixels: np.ndarray) -> np.ndarray:
    """What the tiny network should answer for a picture of its own input size."""
    mean = pixels.reshape(-1, 3).mean(axis=0) / 255
    logits = 80 * (COLOURS / 255) @ mean - 40 * ((COLOURS / 255) ** 2).sum(axis=1)
    odds = np.exp(logits - logits.max())
    return odds / odds.sum()


def test_the_answer_is_the_one_worked_out_by_hand(tiny_classifier: OnnxClassifier) -> None:
    for name in CLASSES:
        pixels = paint(name, shape=(SIDE, SIDE))
        row = tiny_classifier.predict_one(pixels)
        wanted = softmax_by_hand(pixels)
        np.testing.assert_allclose(row.probabilities, wanted, atol=2e-6)
        assert row.label == CLASSES[int(np.argmax(wanted))] == name
        assert row.confidence == max(row.probabilities)
        assert row.sha256 == digest_bytes(pixels.tobytes())
        assert row.model == tiny_classifier.digest[:12]


def test_it_is_a_classifier(tiny_classifier: OnnxClassifier) -> None:
    classifier: Classifier = tiny_classifier
    assert classifier.name == "tiny"
    assert len(classifier.digest) == 64


def test_order_and_labels(tiny_classifier: OnnxClassifier, pictures: list[Path]) -> None:
    told: list[int] = []
    table = tiny_classifier.predict(pictures, progress=told.append)
    assert [row.path for row in table.rows] == [str(path) for path in pictures]
    assert [row.label for row in table.rows] == [CLASSES[n % 5] for n in range(40)]
    assert [row.sha256 for row in table.rows] == [digest_bytes(p.read_bytes()) for p in pictures]
    assert told == list(range(1, 41))


def test_neighbours_do_not_matter(tiny_classifier: OnnxClassifier, pictures: list[Path]) -> None:
    together = tiny_classifier.predict(pictures).rows
    rng = np.random.default_rng(2)
    for size in (1, 2, BATCH - 1, BATCH, BATCH + 1, 33):
        chosen = rng.permutation(40)[:size]
        alone = tiny_classifier.predict([pictures[n] for n in chosen]).rows
        assert list(alone) == [together[n] for n in chosen]


def test_threads_do_not_matter(tiny_bundle: ModelBundle, pictures: list[Path]) -> None:
    tables = [OnnxClassifier(tiny_bundle, threads=n).predict(pictures) for n in (1, 2, 5)]
    assert tables[0] == tables[1] == tables[2]


def test_nothing_to_predict(tiny_classifier: OnnxClassifier) -> None:
    assert tiny_classifier.predict([]) == PredictionTable(())
    inputs = np.zeros((0, SIDE, SIDE, 3), np.uint8)
    assert tiny_classifier.predict_views(inputs).shape == (0, 5)


@pytest.mark.parametrize("bad", [{0}, {39}, {15, 16}, {3, 4, 5, 20}, set(range(40))])
def test_bad_files_in_the_middle(
    bad: set[int], tiny_classifier: OnnxClassifier, pictures: list[Path], tmp_path: Path
) -> None:
    junk = tmp_path / "junk.png"
    junk.write_bytes(b"%!PS-Adobe not a cell")
    files = [junk if n in bad else path for n, path in enumerate(pictures)]
    table = tiny_classifier.predict(files)
    assert len(table.predicted) + len(table.rejected) == 40
    whole = tiny_classifier.predict(pictures).rows
    for n, row in enumerate(table.rows):
        if n in bad:
            assert (row.status, row.reason) == ("rejected", "unsupported-format")
            assert row.sha256 == digest_bytes(junk.read_bytes())
            assert row.model == tiny_classifier.digest[:12]
            assert "EPS" in row.detail
        else:
            assert row == whole[n]


def test_every_kind_of_bad_path(tiny_classifier: OnnxClassifier, tmp_path: Path) -> None:
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "empty.jpg").touch()
    names = ["dangling.jpg", "missing.jpg", "empty.jpg", ".", "nul\0.jpg"]
    table = tiny_classifier.predict([tmp_path / name for name in names])
    reasons = [row.reason for row in table.rows]
    assert reasons == ["unreadable", "unreadable", "empty-file", "unreadable", "unreadable"]
    assert [bool(row.sha256) for row in table.rows] == [False, False, True, False, False]


def test_what_was_done_beyond_decoding_is_said(
    tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    frames = [Image.fromarray(paint(name)) for name in ("Basophil", "Neutrophil")]
    frames[0].save(tmp_path / "two.tiff", save_all=True, append_images=frames[1:])
    row = tiny_classifier.predict_one(tmp_path / "two.tiff")
    assert (row.label, row.detail) == ("Basophil", "first of 2 frames")


@pytest.mark.parametrize("kind", ["grey", "alpha", "palette", "16-bit", "EXIF", "CMYK", "JPEG"])
def test_every_path_to_the_network_sees_the_same_pixels(
    kind: str, tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    """Decoded by hand, as one file, in a batch, in an archive: equal to the last digit."""
    image = Image.fromarray(np.arange(64 * 48 * 3, dtype=np.uint32).reshape(48, 64, 3).astype("u1"))
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    match kind:
        case "grey":
            image.convert("L").save(file, "PNG")
        case "alpha":
            image.putalpha(90)
            image.save(file, "PNG")
        case "palette":
            image.convert("P").save(file, "PNG")
        case "16-bit":
            file.write(cv2.imencode(".png", np.asarray(image).astype("u2") * 200)[1].tobytes())
        case "EXIF":
            image.save(file, "JPEG", exif=exif)
        case "CMYK":
            image.convert("CMYK").save(file, "TIFF")
        case _:
            image.save(file, "JPEG")
    data = file.getvalue()
    (tmp_path / "cell.bin").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as archive:
        archive.writestr("cell.png", data)
    by_hand = tiny_classifier.predict_one(decode_image(data).pixels)
    rows = [
        tiny_classifier.predict_one(tmp_path / "cell.bin"),
        tiny_classifier.predict([tmp_path / "cell.bin"] * 3).rows[2],
        next(tiny_classifier.stream(expand([str(tmp_path / "cells.zip")]))),
        next(tiny_classifier.stream([bytes_source("memory", data)])),
    ]
    assert {row.probabilities for row in rows} == {by_hand.probabilities}
    assert {row.sha256 for row in rows} == {digest_bytes(data)}


def test_one_file(tiny_classifier: OnnxClassifier, pictures: list[Path], tmp_path: Path) -> None:
    assert tiny_classifier.predict_one(str(pictures[7])).label == CLASSES[2]
    (tmp_path / "junk").write_bytes(b"GIF89a")
    with pytest.raises(ImageError, match="GIF") as caught:
        tiny_classifier.predict_one(tmp_path / "junk")
    assert caught.value.reason == "unsupported-format"


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((40, 40), np.uint8), "not-an-image"),
        (np.zeros((40, 40, 4), np.uint8), "not-an-image"),
        (np.zeros((40, 40, 3), np.float32), "not-an-image"),
        (np.zeros((3, 40, 40), np.uint8), "not-an-image"),
        (np.zeros((0, 40, 3), np.uint8), "too-small"),
        (np.zeros((40, 8, 3), np.uint8), "too-small"),
        (np.broadcast_to(np.uint8(0), (9000, 9000, 3)), "too-large"),
    ],
)
def test_arrays_that_are_no_picture(
    pixels: np.ndarray, reason: str, tiny_classifier: OnnxClassifier
) -> None:
    with pytest.raises(ImageError) as caught:
        tiny_classifier.predict_one(pixels)
    assert caught.value.reason == reason


def test_an_array_that_is_not_contiguous(tiny_classifier: OnnxClassifier) -> None:
    pixels = paint("Monocyte")
    bgr = np.ascontiguousarray(pixels[..., ::-1])
    assert tiny_classifier.predict_one(bgr[..., ::-1]) == tiny_classifier.predict_one(pixels)


def test_a_stream_is_read_as_it_is_needed(tiny_classifier: OnnxClassifier) -> None:
    data = encode_png(paint("Eosinophil"))
    read = 0
    lock = threading.Lock()

    def sources() -> Iterator[Source]:
        for number in range(1000):

            def get() -> bytes:
                nonlocal read
                with lock:
                    read += 1
                return data

            yield called(str(number), get)

    threads = threading.active_count()
    answers = tiny_classifier.stream(sources())
    assert [next(answers).path for _ in range(3)] == ["0", "1", "2"]
    assert threading.active_count() == threads + 2
    assert read <= AHEAD
    answers.close()
    assert threading.active_count() == threads


def test_small_jobs_are_shared_out(tiny_bundle: ModelBundle) -> None:
    data = encode_png(paint("Eosinophil"))
    classifier = OnnxClassifier(tiny_bundle, threads=8)
    shares: dict[int, int] = {}
    prepare = classifier._prepare

    def watched(source: Source) -> Any:
        me = threading.get_ident()
        shares[me] = shares.get(me, 0) + 1
        time.sleep(0.01)
        return prepare(source)

    classifier._prepare = watched  # type: ignore[method-assign]
    rows = list(classifier.stream(bytes_source(str(n), data) for n in range(200)))
    assert [row.path for row in rows] == [str(n) for n in range(200)]
    assert len(shares) == 8
    assert max(shares.values()) <= 40  # 25 each would be even


def test_a_part_of_large_inputs_is_small(tiny_bundle: ModelBundle) -> None:
    assert OnnxClassifier(tiny_bundle)._part == PART
    assert OnnxClassifier(tiny_bundle, part=16)._part == 16
    assert part_of(tiny_bundle.preprocess) == PART
    assert part_of(PreprocessSpec((1024, 1024))) == 10
    assert part_of(PreprocessSpec((2048, 2048))) == 2


def test_few_sources_are_alive_at_a_time(tiny_classifier: OnnxClassifier) -> None:
    data = encode_png(paint("Eosinophil"))
    alive, most = 0, 0

    class Watched:
        """A file's bytes, counted as long as anybody holds the source."""

        def __init__(self) -> None:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __call__(self) -> bytes:
            return data

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    answers = tiny_classifier.stream(called(str(n), Watched()) for n in range(800))
    assert sum(row.label == "Eosinophil" for row in answers) == 800
    assert most <= 4 * 64 + 2 * 64  # four parts, one being dealt out and one being read
    assert alive == 0


def test_a_slow_file_among_good_and_bad_ones(tiny_bundle: ModelBundle) -> None:
    data = encode_png(paint("Monocyte"))
    go, late = threading.Event(), []

    def slow() -> bytes:
        assert go.wait(30)
        return data

    def read(number: int) -> bytes:
        late.append(number)
        if number == 11:
            go.set()  # others were read while the first one waited
        if number % 7 == 3:
            raise ImageError("unreadable", f"{number} is on a tape.")
        return data

    sources = [called("0", slow)] + [called(str(n), partial(read, n)) for n in range(1, 60)]
    rows = list(OnnxClassifier(tiny_bundle, threads=2).stream(sources))
    assert [row.path for row in rows] == [str(n) for n in range(60)]
    assert [n for n, row in enumerate(rows) if row.status != "ok"] == list(range(3, 60, 7))
    assert {row.detail for row in rows if row.status != "ok"} == {
        f"{n} is on a tape." for n in range(3, 60, 7)
    }


def test_a_fault_that_is_nobodys_file_ends_the_stream_and_its_threads(
    tiny_classifier: OnnxClassifier,
) -> None:
    data = encode_png(paint("Monocyte"))

    def sources() -> Iterator[Source]:
        for number in range(50):
            yield bytes_source(str(number), data)
        raise DataError("The list ends in the middle of a line.")

    threads = threading.active_count()
    with pytest.raises(DataError, match="middle of a line"):
        list(tiny_classifier.stream(sources()))
    assert threading.active_count() == threads


def test_many_inputs_at_once_are_answered_as_one_by_one(tiny_classifier: OnnxClassifier) -> None:
    inputs = np.random.default_rng(5).integers(0, 256, (150, SIDE, SIDE, 3)).astype(np.uint8)
    alone = np.concatenate([tiny_classifier.predict_views(row[None]) for row in inputs])
    np.testing.assert_array_equal(tiny_classifier.predict_views(inputs), alone)


# Devices


def test_cuda_without_its_runtime_is_one_sentence(tiny_bundle: ModelBundle) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    with pytest.raises(DeviceError, match=r"cannot use cuda\. Replace .* by onnxruntime-gpu"):
        OnnxClassifier(tiny_bundle, device="cuda")


def test_an_unknown_device(tiny_bundle: ModelBundle) -> None:
    with pytest.raises(UsageError, match="must be cpu or cuda, received 'abacus'"):
        OnnxClassifier(tiny_bundle, device="abacus")


# Scaled decoding


def test_a_scaled_bundle_reads_small_and_answers_alike(
    tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    pixels = cv2.resize(paint("Basophil"), (575, 575), interpolation=cv2.INTER_LINEAR)
    (tmp_path / "cell.jpg").write_bytes(encode_jpeg(pixels))
    (tmp_path / "cell.png").write_bytes(encode_png(pixels))
    spec = PreprocessSpec((SIDE, SIDE), 1.0, scaled=True)
    goldens = make_goldens(tiny_bundle.onnx, spec)
    scaled = OnnxClassifier(replace(tiny_bundle, preprocess=spec, goldens=goldens), threads=1)
    assert scaled.digest != tiny_bundle.digest
    jpeg, png = scaled.predict([tmp_path / "cell.jpg", tmp_path / "cell.png"]).rows
    assert jpeg.label == png.label == "Basophil"
    np.testing.assert_allclose(jpeg.probabilities, png.probabilities, atol=0.02)
    wanted = spec.apply(decode_image((tmp_path / "cell.jpg").read_bytes(), spec=spec).pixels)
    assert jpeg.probabilities == tuple(scaled.predict_views(wanted[None])[0])


# Opening


def test_load_by_path(tiny_model: Path, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    tiny_bundle.save(tmp_path / "run" / "bundle")
    for model in (tiny_model, str(tiny_model), tmp_path / "run", str(tmp_path / "run" / "bundle")):
        assert leuko.load(model, threads=1).digest == tiny_bundle.digest


def test_a_name_in_the_current_folder(
    tiny_bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_bundle.save("mine")
    tiny_bundle.save("mine.zip")
    assert load("./mine").name == load("mine.zip").name == load(Path("mine")).name == "tiny"
    with pytest.raises(BundleError, match=r"no bundled model 'mine'.*as in \./mine"):
        load("mine")


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundled model 'resnet'"):
        load("resnet")
    with pytest.raises(BundleError, match="There is no model at"):
        load(tmp_path / "nothing")
    with pytest.raises(BundleError, match="There is no model at"):
        load("nothing.zip")
