"""Models from strangers: how they are read, what is asked for, and what is refused."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the extra 'train'")

from onnx import helper  # noqa: E402

from five import CLASSES  # noqa: E402
from foreign import ORDER, SIDE, TAKE, answers_by_hand, foreign_model  # noqa: E402
from leuko.bundle import ModelBundle  # noqa: E402
from leuko.errors import BundleError, UsageError  # noqa: E402
from leuko.formats import importing  # noqa: E402
from leuko.formats.importing import (  # noqa: E402
    ForeignPixels,
    import_bundle,
    read_classes,
    read_pixels,
)
from leuko.imaging.preprocess import PreprocessSpec  # noqa: E402
from leuko.runtime.classifier import OnnxClassifier  # noqa: E402
from leuko.scheme import load_scheme  # noqa: E402
from leuko.support.reporter import Reporter  # noqa: E402
from tiny import paint  # noqa: E402

Leuko = Callable[..., Any]
PIXELS = np.random.default_rng(3).integers(0, 256, (4, *SIDE, 3)).astype(np.uint8)
PIXELS = (PIXELS * [[[[0.2]]], [[[0.5]]], [[[0.8]]], [[[1]]]]).astype(np.uint8)
BY_255 = ForeignPixels((1 / 255,))
ROUTINE = load_scheme("differential-5")


def saved(folder: Path, **settings: Any) -> Path:
    path = folder / "somebody.onnx"
    path.write_bytes(foreign_model(**settings).SerializeToString())
    return path


@pytest.mark.parametrize(
    ("scale", "offset", "expected"),
    [
        ("1", "0", ForeignPixels((1.0,))),
        ("1/255", "0", BY_255),
        (" 0.5 ", "-1", ForeignPixels((0.5,), (-1.0,))),
        ("1,2,1/4", "-1/2,.5,0", ForeignPixels((1.0, 2.0, 0.25), (-0.5, 0.5, 0.0))),
        (None, "+2e-3", ForeignPixels(None, (0.002,))),
        ("1/255", None, BY_255),
    ],
)
def test_pixels_are_read(scale: str | None, offset: str | None, expected: ForeignPixels) -> None:
    assert read_pixels(scale, offset) == expected


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1",
        "1/0",
        "nan",
        "inf",
        "",
        "1/2/3",
        "__import__('os')",
        "1,2",
        "1e9",
        "1e-12",
        "1,,1",
    ],
)
def test_other_scales_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="positive number or fraction"):
        read_pixels(text)


def test_an_offset_written_into_the_scale_gets_a_hint() -> None:
    with pytest.raises(UsageError, match=r"Write --input-scale 1/127\.5 --input-offset -1 instead"):
        read_pixels("1/127.5-1")
    with pytest.raises(UsageError, match=r"Write --input-scale 1/255 --input-offset 0\.5 instead"):
        read_pixels("1/255 +0.5")
    with pytest.raises(UsageError, match=r"give --input-offset -1 then, or --input-offset 0"):
        read_pixels("1/127.5")
    assert read_pixels("1/127.5", "0").offset == (0.0,)
    with pytest.raises(UsageError, match="input offset is 'x'"):
        read_pixels("1", "x")
    with pytest.raises(UsageError, match="expected rgb or bgr"):
        read_pixels("1", "0", "grb")


def test_the_five_names_in_any_order_and_others_as_they_come() -> None:
    assert read_classes(ORDER) == (ROUTINE, tuple(TAKE))
    scheme, order = read_classes(["sickle", " round "])
    assert (scheme.names, order) == (("sickle", "round"), (0, 1))
    assert read_classes(load_scheme("pbc-8").names)[0] == load_scheme("pbc-8")
    with pytest.raises(UsageError, match=r"neut,neut,eos.*Name each output once"):
        read_classes(["neut", "neut", "eos", "mono", "baso"])
    with pytest.raises(UsageError, match=r"expected 2 to 100.*Name each output once"):
        read_classes(["neut"])


def test_an_import_of_two_classes_that_cannot_be_drawn(tmp_path: Path) -> None:
    """It is asked drawn cells too, but one answer to all of them says nothing against it."""
    path = saved(tmp_path, classes=2)
    bundle = import_bundle(path, classes=["sickle", "round"], pixels=BY_255)
    assert bundle.scheme.names == ("sickle", "round")
    assert bundle.provenance["imported"]["class_order"] == [0, 1]
    classifier = OnnxClassifier(bundle, threads=1)
    asked = [classifier.predict_one(paint(name, shape=SIDE)) for name in CLASSES[:2]]
    assert [row.likeliest for row in asked] == ["sickle", "round"]
    with pytest.raises(BundleError, match="gives the same answer to each of 30 drawn white cells"):
        import_bundle(path, classes=["sickle", "round"], pixels=read_pixels("1/65025"))


def test_numbers_are_no_class_names() -> None:
    for names in ("1,2,3,4,5", "0,1,2,3,4", "neut,2,eos,mono,baso"):
        with pytest.raises(UsageError, match=r"is a number, and data sets number .* Give their na"):
            read_classes(names.split(","))


def test_an_onnx_file_becomes_a_bundle(tmp_path: Path) -> None:
    said: list[str] = []
    pixels = {"scale": [1 / 127.5], "offset": [-1.0], "bgr": True}
    bundle = import_bundle(
        saved(tmp_path, **pixels),
        classes=ORDER,
        pixels=read_pixels("1/127.5", "-1", "bgr"),
        command="leuko import-model somebody.onnx",
        reporter=Reporter(say=said.append),
    )
    bundle.save(tmp_path / "bundle")
    opened = OnnxClassifier(ModelBundle.load(tmp_path / "bundle"))
    np.testing.assert_allclose(opened.predict_views(PIXELS), answers_by_hand(PIXELS), atol=2e-5)
    source = bundle.provenance["imported"]
    assert source["source_format"] == "onnx"
    assert source["class_order"] == TAKE
    assert (source["channel_order"], source["layout"]) == ("bgr", "NCHW")
    assert source["softmax_added"]
    assert said == [
        "Pixels are read as BGR 0 to 255 multiplied by 0.00784314, plus -1; outputs as "
        "Neutrophil, Eosinophil, Monocyte, Lymphocyte, Basophil.",
        "The network ends in logits; a softmax was added.",
        "It answers Monocyte to all 30 drawn cells: check its pixels, and measure it before use.",
    ]
    assert source["source_sha256"] in bundle.card
    assert "a softmax was added" in bundle.card
    assert "`leuko models calibrate`" in bundle.card
    assert (bundle.parameters, bundle.name, bundle.thresholds) == (20, "somebody", {})


@pytest.mark.parametrize("settings", [{"layout": "NHWC"}, {"batch": 1}, {"end": "Softmax"}])
def test_layouts_batches_and_endings(tmp_path: Path, settings: dict[str, Any]) -> None:
    bundle = import_bundle(saved(tmp_path, **settings), classes=ORDER, pixels=BY_255)
    answers = OnnxClassifier(bundle).predict_views(PIXELS)
    np.testing.assert_allclose(answers, answers_by_hand(PIXELS), atol=2e-5)
    assert bundle.provenance["imported"]["softmax_added"] is ("end" not in settings)


def test_onnx_needs_no_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("keras", "tensorflow", "tf2onnx", "onnx", "h5py"):
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "m.onnx"
    path.write_bytes(foreign_model().SerializeToString())
    assert import_bundle(path, classes=ORDER, pixels=BY_255).parameters == 20


def test_a_scale_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"needs --input-scale.* 1/255 .*1/127\.5 with --input-of"):
        import_bundle(saved(tmp_path), classes=ORDER, pixels=ForeignPixels())


def test_a_scale_inside_is_said_and_another_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Div", ["x", "c"], ["y"])]
    path = saved(tmp_path, before=nodes, weights={"c": np.float32([255])})
    said: list[str] = []
    bundle = import_bundle(
        path, classes=ORDER, pixels=ForeignPixels(), reporter=Reporter(say=said.append)
    )
    assert "The network scales pixels itself, so it is given 0 to 255: scale 1." in said
    answers = OnnxClassifier(bundle).predict_views(PIXELS)
    np.testing.assert_allclose(answers, answers_by_hand(PIXELS), atol=2e-5)
    with pytest.raises(
        BundleError, match=r"contradicts the network: it multiplies pixels by .* 0\.0039"
    ):
        import_bundle(path, classes=ORDER, pixels=BY_255)
    with pytest.raises(UsageError, match="needs --input-scale"):
        import_bundle(path, classes=ORDER, pixels=ForeignPixels(offset=(-1.0,)))
    # One that was trained so, divided twice, is taken: its answers differ.
    twice = saved(tmp_path, before=nodes, weights={"c": np.float32([255])}, scale=[1 / 255 / 255])
    model = onnx.load_model_from_string(twice.read_bytes())
    assert import_bundle(twice, classes=ORDER, pixels=BY_255).parameters == 21
    assert len(model.graph.node) == 3


@pytest.mark.parametrize(
    "pixels",
    [
        ForeignPixels((1.0,)),
        ForeignPixels((1 / 255 / 255,)),
        ForeignPixels((1 / 255,), (-3.0,)),
    ],
)
def test_pixels_that_make_every_cell_the_same_are_refused(
    tmp_path: Path, pixels: ForeignPixels
) -> None:
    with pytest.raises(
        BundleError, match=r"answers?.* to .*30 drawn cells of all 5 classes.*--channel-order"
    ):
        import_bundle(saved(tmp_path), classes=ORDER, pixels=pixels)


@pytest.mark.slow
def test_usual_pixels_that_tell_cells_apart_are_named(tmp_path: Path) -> None:
    drawn = importing._drawn_cells(PreprocessSpec(size=SIDE), ROUTINE).mean(axis=(1, 2))
    colours = drawn[np.argsort(drawn[:, 1])][[0, 7, 14, 22, 29]]
    path = saved(tmp_path, scale=[1 / 127.5], offset=[-1], colours=colours, sharpness=300)
    sentence = r"answers? .* With --input-scale 1/127\.5 --input-offset -1 --channel-order rgb it"
    for wrong in (BY_255, ForeignPixels((1 / 100,), (-1.0,)), ForeignPixels((1.0,))):
        with pytest.raises(BundleError, match=sentence):
            import_bundle(path, classes=ORDER, pixels=wrong)
    said: list[str] = []
    import_bundle(
        path, classes=ORDER, pixels=read_pixels("1/127.5", "-1"), reporter=Reporter(say=said.append)
    )
    assert len(said) == 2


def test_answers_that_are_sure_of_everything() -> None:
    sure = np.eye(5)[np.arange(30) % 5]
    assert importing._collapse(sure, ROUTINE) == ""  # and right: trained on drawn cells
    wrong = np.roll(sure, 1, axis=1)
    assert importing._collapse(wrong, ROUTINE) == "is sure to 99.9% of nearly all its answers to"
    wrong[:10] = 0.6 * wrong[:10] + 0.08
    assert importing._collapse(wrong, ROUTINE) == ""
    assert importing._collapse(np.full((30, 5), 0.2), ROUTINE) == "gives the same answer to each of"
    assert importing._collapse(sure[:1] * 0.995 + np.linspace(0, 0.004, 30)[:, None], ROUTINE) == (
        "answers Basophil to each of"
    )


def test_answers_that_hang_on_chance_or_on_others_are_refused(tmp_path: Path) -> None:
    noise = [
        helper.make_node("RandomNormalLike", ["x"], ["n"], scale=30.0),
        helper.make_node("Add", ["x", "n"], ["y"]),
    ]
    with pytest.raises(
        BundleError, match=r"depends on the other pictures or on chance.*model\.eval"
    ):
        import_bundle(saved(tmp_path, before=noise), classes=ORDER, pixels=BY_255)
    batch = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0, 2, 3]),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    with pytest.raises(BundleError, match="depends on the other pictures"):
        import_bundle(saved(tmp_path, before=batch), classes=ORDER, pixels=BY_255)


def test_a_batch_that_is_written_down_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    shape = np.array([1, 3, *SIDE])
    path = saved(tmp_path, before=nodes, weights={"s": shape}, batch=1)
    with pytest.raises(BundleError, match=r"cannot answer several pictures .* dynamic_axes"):
        import_bundle(path, classes=ORDER, pixels=BY_255)


@pytest.mark.parametrize("end", ["Sigmoid", "Relu"])
def test_endings_that_are_neither_probabilities_nor_logits(tmp_path: Path, end: str) -> None:
    with pytest.raises(BundleError, match=f"ends in {end}, and its 5 answers are neither"):
        import_bundle(saved(tmp_path, end=end), classes=ORDER, pixels=BY_255)


class _Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.h5"
    torch = io.BytesIO()
    with zipfile.ZipFile(torch, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(_Payload(str(marker))))
    for data in (pickle.dumps(_Payload(str(marker))), torch.getvalue(), b"", b"\xff\xd8jpeg"):
        path.write_bytes(data)
        with pytest.raises(BundleError, match=r"neither a Keras model.*torch\.onnx\.export"):
            import_bundle(path, classes=ORDER, pixels=BY_255)
    assert not marker.exists()
    path.write_bytes(b"\x08\x07no")
    with pytest.raises(BundleError, match="not a well-formed ONNX file"):
        import_bundle(path, classes=ORDER, pixels=BY_255)
    with pytest.raises(UsageError, match="does not exist"):
        import_bundle(tmp_path / "none.h5", classes=ORDER, pixels=BY_255)
    with pytest.raises(UsageError, match="is a folder"):
        import_bundle(tmp_path, classes=ORDER, pixels=BY_255)


def test_operators_that_onnx_runtime_does_not_know(tmp_path: Path) -> None:
    nodes = [helper.make_node("Teleport", ["x"], ["y"])]
    with pytest.raises(BundleError, match="cannot be loaded"):
        import_bundle(saved(tmp_path, before=nodes), classes=ORDER, pixels=BY_255)


@pytest.mark.slow
def test_the_command(tmp_path: Path, leuko: Leuko) -> None:
    path, out = saved(tmp_path), tmp_path / "bundle.zip"
    arguments = ("import-model", path, "--out", out, "--classes", ",".join(ORDER))
    done = leuko(*arguments)
    assert done.code == 2
    assert "needs --input-scale" in done.err
    assert leuko(*arguments, "--input-scale", "1").code == 1
    assert not out.exists()
    done = leuko(*arguments, "--input-scale", "1/255", "--input-offset", "0")
    assert done.code == 0, done.err
    assert done.out.startswith(f"{out}: 20 parameters, digest ")
    assert "leuko models calibrate" in done.err
    document = json.loads(leuko(*arguments, "--input-scale", "1/255", "--json", "--quiet").out)
    assert document["provenance"]["imported"]["source_name"] == "somebody.onnx"
    assert "from: imported from somebody.onnx" in leuko("models", "show", out).out
    assert leuko(*arguments, "--input-scale", "1/127.5").code == 2
    numbers = leuko("import-model", path, "--out", out, "--classes", "1,2,3,4,5")
    assert numbers.code == 2
    assert "is a number" in numbers.err
