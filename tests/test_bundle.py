"""A bundle is what was written, or it is refused."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leuko.bundle import Goldens, ModelBundle, golden_pictures
from leuko.errors import BundleError, OutputError
from leuko.imaging.preprocess import PreprocessSpec
from leuko.runtime.classifier import OnnxClassifier, make_goldens
from leuko.support.artifacts import digest_bytes, digest_json

pytest.importorskip("onnx", reason="needs the extra 'train'")

import onnx

from tiny import SIDE, make_onnx

MEMBERS = ["bundle.json", "card.md", "goldens.npz", "model.onnx"]


def write_zip(path: Path, files: dict[str, bytes], *, kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def resealed(bundle: ModelBundle, change: dict[str, Any], **files: bytes) -> dict[str, bytes]:
    """The members of a bundle whose forger has put every digest right."""
    members = {**bundle.members(), **{name.replace("_", "."): d for name, d in files.items()}}
    document = {**json.loads(members["bundle.json"]), **change}
    document["files"] = {n: digest_bytes(members[n]) for n in MEMBERS if n != "bundle.json"}
    document["digest"] = digest_json(
        {
            "onnx": digest_bytes(members["model.onnx"]),
            "classes": document["classes"],
            "preprocess": document["preprocess"],
            "calibration": document["calibration"],
            "thresholds": document["thresholds"],
        }
    )
    document.pop("seal")
    document["seal"] = digest_json(document)
    return {**members, "bundle.json": json.dumps(document).encode()}


# Round trips


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_round_trip(name: str, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    tiny_bundle.save(tmp_path / name)
    again = ModelBundle.load(tmp_path / name)
    assert replace(again, goldens=tiny_bundle.goldens) == tiny_bundle
    np.testing.assert_array_equal(again.goldens.pictures, tiny_bundle.goldens.pictures)
    np.testing.assert_array_equal(again.goldens.probabilities, tiny_bundle.goldens.probabilities)
    assert again.digest == tiny_bundle.digest
    assert OnnxClassifier(again, threads=1).name == "tiny"


def test_equal_bundles_give_equal_bytes(
    tiny_bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_bundle.save(tmp_path / "a.zip")
    later = time.time() + 1e6
    monkeypatch.setattr(time, "time", lambda: later)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(later))
    again = ModelBundle.load(tmp_path / "a.zip")
    again.save(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_members_are_those_promised(tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    tiny_bundle.save(tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == MEMBERS
    document = json.loads((tmp_path / "b" / "bundle.json").read_text())
    assert document["schema"] == "leuko.bundle/1"
    assert document["classes"][0] == "Basophil"
    assert "Research use only" in document["research_use"]


def test_a_run_folder_and_a_folder_moved_aside(tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    tiny_bundle.save(tmp_path / "run" / "bundle")
    assert ModelBundle.load(tmp_path / "run").digest == tiny_bundle.digest
    # What a process killed between the two renames leaves behind:
    (tmp_path / "run" / "bundle").rename(tmp_path / "run" / ".leuko-bundle.old")
    assert ModelBundle.load(tmp_path / "run").digest == tiny_bundle.digest
    (tmp_path / "run" / "bundle").rename(tmp_path / "run" / ".leuko-bundle.old")
    assert ModelBundle.load(tmp_path / "run" / "bundle").digest == tiny_bundle.digest


def test_saving_again_replaces_a_bundle_and_nothing_else(
    tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    tiny_bundle.save(tmp_path / "b")
    replace(tiny_bundle, card="Other words.").save(tmp_path / "b")
    assert ModelBundle.load(tmp_path / "b").card == "Other words."
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match=r"such as thesis\.txt; writing would replace them"):
        tiny_bundle.save(tmp_path / "documents")
    assert (tmp_path / "documents" / "thesis.txt").read_text() == "years of work"
    with pytest.raises(OutputError, match="a file stands where a folder is needed"):
        tiny_bundle.save(tmp_path / "documents" / "thesis.txt")
    (tmp_path / "empty").mkdir()
    tiny_bundle.save(tmp_path / "empty")
    longest = tmp_path / ("é" * 127)  # 254 bytes, of 255
    for _ in range(2):
        tiny_bundle.save(longest)
    assert ModelBundle.load(longest).digest == tiny_bundle.digest


def test_a_card_may_quote_any_file_name(tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    replace(tiny_bundle, card="From m\udcff.h5.").save(tmp_path / "b.zip")
    assert ModelBundle.load(tmp_path / "b.zip").card == r"From m\udcff.h5."


def test_the_digest_tells_what_decides_an_answer(tiny_bundle: ModelBundle) -> None:
    assert replace(tiny_bundle, card="Other words.").digest == tiny_bundle.digest
    for other in (
        replace(tiny_bundle, preprocess=PreprocessSpec((SIDE, SIDE), 0.9)),
        replace(tiny_bundle, thresholds={"unsure": 0.5}),
        replace(tiny_bundle, onnx=tiny_bundle.onnx + b" "),
    ):
        assert other.digest != tiny_bundle.digest


def test_golden_pictures_are_always_the_same() -> None:
    assert digest_bytes(golden_pictures().tobytes()) == digest_bytes(golden_pictures().tobytes())
    assert golden_pictures().shape == (4, 96, 96, 3)


# Damage


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_flipped_bit_in_any_member(
    form: str, member: str, tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    files = tiny_bundle.members()
    rng = np.random.default_rng(8)
    for _ in range(25):
        data = bytearray(files[member])
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        changed = {**files, member: bytes(data)}
        if form == "zip":
            path = write_zip(tmp_path / "b.zip", changed)
        else:
            path = tmp_path / "b"
            path.mkdir(exist_ok=True)
            for name, content in changed.items():
                (path / name).write_bytes(content)
        with pytest.raises(BundleError):
            ModelBundle.load(path)


def test_a_flipped_bit_anywhere_in_a_zip(tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    tiny_bundle.save(tmp_path / "b.zip")
    data = (tmp_path / "b.zip").read_bytes()
    rng = np.random.default_rng(9)
    for _ in range(300):
        changed = bytearray(data)
        changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        (tmp_path / "c.zip").write_bytes(changed)
        try:
            received = ModelBundle.load(tmp_path / "c.zip")
        except BundleError:
            continue
        # A date or an attribute of the archive itself: the members are all there and right.
        assert received.members() == tiny_bundle.members()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_zip(share: float, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    tiny_bundle.save(tmp_path / "b.zip")
    data = (tmp_path / "b.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(data[: int(share * len(data))])
    with pytest.raises(BundleError, match="cannot be read as a bundle"):
        ModelBundle.load(tmp_path / "b.zip")


@pytest.mark.parametrize("member", MEMBERS)
def test_a_missing_member(member: str, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    tiny_bundle.save(tmp_path / "b")
    (tmp_path / "b" / member).unlink()
    with pytest.raises(BundleError, match=f"not a complete bundle: {member} cannot be read"):
        ModelBundle.load(tmp_path / "b")
    files = {name: data for name, data in tiny_bundle.members().items() if name != member}
    with pytest.raises(BundleError, match="is not a bundle: expected"):
        ModelBundle.load(write_zip(tmp_path / "b.zip", files))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="There is no model at"):
        ModelBundle.load(tmp_path / "nothing")
    with pytest.raises(BundleError, match="not a complete bundle"):
        ModelBundle.load(tmp_path)
    with pytest.raises(BundleError, match="cannot be read"):
        ModelBundle.load(tmp_path / ("x" * 300))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(BundleError, match="cannot be read as a bundle: File is not a zip"):
        ModelBundle.load(tmp_path / "text")


@pytest.mark.parametrize(
    "extra",
    ["readme.txt", "../evil.py", "/etc/evil", "model.onnx.data", "sub/model.onnx", "MODEL.ONNX"],
)
def test_an_extra_member(extra: str, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "b.zip", {**tiny_bundle.members(), extra: b"x"})
    with pytest.raises(BundleError, match="is not a bundle: expected"):
        ModelBundle.load(path)
    assert [place.name for place in tmp_path.iterdir()] == ["b.zip"]


def test_a_member_twice(tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    write_zip(tmp_path / "b.zip", tiny_bundle.members())
    twice = pytest.warns(UserWarning, match="Duplicate name")
    with zipfile.ZipFile(tmp_path / "b.zip", "a") as archive, twice:
        archive.writestr("card.md", b"x")
    with pytest.raises(BundleError, match="is not a bundle"):
        ModelBundle.load(tmp_path / "b.zip")


def test_a_zip_bomb(tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    files = {**tiny_bundle.members(), "model.onnx": bytes(50_000_000)}
    path = write_zip(tmp_path / "b.zip", files)
    assert path.stat().st_size < 200_000
    with pytest.raises(BundleError, match=r"refused: model\.onnx unpacks to 50000000 bytes"):
        ModelBundle.load(path)


def test_a_bomb_inside_the_goldens(tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    file = io.BytesIO()
    pictures = np.zeros((240, 96, 1000, 3), np.uint8)
    np.savez_compressed(file, pictures=pictures, probabilities=np.zeros((240, 5), np.float32))
    for name, data in resealed(tiny_bundle, {}, goldens_npz=file.getvalue()).items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BundleError, match="goldens are too large"):
        ModelBundle.load(tmp_path)


def test_an_unusual_packing(tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "b.zip", tiny_bundle.members(), kind=zipfile.ZIP_BZIP2)
    with pytest.raises(BundleError, match="packed in an unusual way"):
        ModelBundle.load(path)


# Lies that are well told: every digest is right


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "leuko.bundle/2"}, "newer Leuko"),
        ({"schema": "leuko.audit/1"}, "not a bundle document"),
        ({"classes": ["Neutrophil", "Basophil", "Eosinophil", "Lymphocyte", "Monocyte"]}, "scheme"),
        ({"scheme": {"name": "x", "classes": [{"name": "a"}]}}, "1 classes; expected 2 to 100"),
        ({"scheme": 7}, "class scheme cannot be read"),
        ({"classes": ["a"]}, "its classes are not those of its scheme"),
        ({"classes": None}, "damaged"),
        ({"preprocess": {"size": [24, 24], "crop": 1.0, "resize": "lanczos"}}, "newer Leuko"),
        ({"preprocess": {"size": [24, 4.5]}}, "whole numbers"),
        ({"preprocess": None}, "damaged"),
        ({"parameters": "many"}, "damaged"),
        ({"calibration": 3}, "damaged"),
        ({"provenance": "x"}, "damaged"),
        ({"provenance": {"variant": 5}}, "says of its original is no table"),
        ({"provenance": {"variant": {"source": "x"}}}, "says of its original is no table"),
        ({"preprocess": {"size": [24, 24], "crop": 10**400}}, "damaged"),
    ],
)
def test_settings_that_cannot_be(
    change: dict[str, Any], message: str, tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    path = write_zip(tmp_path / "b.zip", resealed(tiny_bundle, change))
    with pytest.raises(BundleError, match=message):
        ModelBundle.load(path)


@pytest.mark.parametrize("files", [None, [], "x", {}, {"card.md": 1}, {"../../x": "y"}])
def test_a_faulty_list_of_files(files: Any, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    members = tiny_bundle.members()
    document = {**json.loads(members["bundle.json"]), "files": files}
    document.pop("seal")
    members["bundle.json"] = json.dumps(document).encode()
    with pytest.raises(BundleError, match="damaged"):
        ModelBundle.load(write_zip(tmp_path / "b.zip", members))


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"schema": NaN}'])
def test_a_bundle_json_that_is_none(text: bytes, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    members = {**tiny_bundle.members(), "bundle.json": text}
    with pytest.raises(BundleError, match="not a bundle that can be opened"):
        ModelBundle.load(write_zip(tmp_path / "b.zip", members, kind=zipfile.ZIP_STORED))


@pytest.mark.parametrize("key", ["validation", "parameters", "provenance", "name"])
def test_figures_changed_by_hand(key: str, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    members = tiny_bundle.members()
    document = json.loads(members["bundle.json"])
    document[key] = {"metrics": {"accuracy": {"value": 1.0}}} if key != "parameters" else 7
    members["bundle.json"] = json.dumps(document).encode()
    with pytest.raises(BundleError, match="changed by hand"):
        ModelBundle.load(write_zip(tmp_path / "b.zip", members))


GOOD = {"pictures": golden_pictures(), "probabilities": np.full((4, 5), 0.2, np.float32)}


@pytest.mark.parametrize(
    "arrays",
    [
        {"pictures": GOOD["pictures"]},
        {**GOOD, "pictures": GOOD["pictures"].astype(np.float32)},
        {**GOOD, "pictures": GOOD["pictures"][..., 0]},
        {**GOOD, "pictures": GOOD["pictures"][:3]},
        {**GOOD, "pictures": GOOD["pictures"][:, :8]},
        {**GOOD, "probabilities": np.full((4, 5), np.nan, np.float32)},
        {**GOOD, "probabilities": np.full((4, 4), 0.25, np.float32)},
        {name: array[:0] for name, array in GOOD.items()},
        {**GOOD, "pictures": np.array([{}], dtype=object)},
    ],
)
def test_goldens_that_check_nothing(
    arrays: dict[str, Any], tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    path = write_zip(tmp_path / "b.zip", resealed(tiny_bundle, {}, goldens_npz=file.getvalue()))
    with pytest.raises(BundleError, match="damaged"):
        ModelBundle.load(path)


@pytest.mark.parametrize("data", [b"", b"PK", b"\x93NUMPY\x01\x00"])
def test_goldens_that_are_no_archive(data: bytes, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "b.zip", resealed(tiny_bundle, {}, goldens_npz=data))
    with pytest.raises(BundleError, match="damaged"):
        ModelBundle.load(path)


# What the runtime finds


def test_changed_preprocessing_is_caught_by_the_goldens(tiny_bundle: ModelBundle) -> None:
    for spec in (PreprocessSpec((SIDE, SIDE), 0.5), PreprocessSpec((SIDE, SIDE), 0.8)):
        with pytest.raises(BundleError, match="does not answer as it did"):
            OnnxClassifier(replace(tiny_bundle, preprocess=spec))
    with pytest.raises(BundleError, match=r"takes \[24, 24, 3\]"):
        OnnxClassifier(replace(tiny_bundle, preprocess=PreprocessSpec((32, 32))))


def test_changed_answers_are_caught_by_the_goldens(tiny_bundle: ModelBundle) -> None:
    wrong = tiny_bundle.goldens.probabilities[:, ::-1].copy()
    with pytest.raises(BundleError, match="does not answer as it did"):
        OnnxClassifier(replace(tiny_bundle, goldens=Goldens(golden_pictures(), wrong)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(value: float, tiny_bundle: ModelBundle) -> None:
    weights = np.ones((3, 5), np.float32)
    weights[1, 2] = value
    broken = make_onnx(weights=weights)
    with pytest.raises(BundleError, match="not a finite number"):
        make_goldens(broken, PreprocessSpec((SIDE, SIDE)))  # never saved
    with pytest.raises(BundleError, match="not a finite number"):
        OnnxClassifier(replace(tiny_bundle, onnx=broken))  # never loaded


@pytest.mark.parametrize("how", ["raw", "list"])
def test_a_weight_that_hides_behind_a_rectifier(how: str, tiny_bundle: ModelBundle) -> None:
    """ONNX Runtime's Relu may turn a not-a-number into 0, so that every answer looks well."""
    model = onnx.load_from_string(make_onnx())
    values = np.array([1, np.nan], np.float32)
    if how == "raw":
        tensor = onnx.numpy_helper.from_array(values, "dead")
    else:
        tensor = onnx.helper.make_tensor("dead", onnx.TensorProto.FLOAT, [2], values.tolist())
    model.graph.initializer.append(tensor)
    with pytest.raises(BundleError, match="weight that is not a finite number"):
        OnnxClassifier(replace(tiny_bundle, onnx=model.SerializeToString()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"softmax": False}, "no probabilities"),
        ({"classes": 4}, r"gives \[4\]; the bundle promises"),
        ({"side": 32}, r"takes \[32, 32, 3\]"),
        ({"batch": 1}, "cannot be run on 2 pictures"),
        ({"kind": 11}, "32-bit floats"),
    ],
)
def test_networks_of_another_kind(
    options: dict[str, Any], message: str, tiny_bundle: ModelBundle
) -> None:
    with pytest.raises(BundleError, match=message):
        OnnxClassifier(replace(tiny_bundle, onnx=make_onnx(**options)))


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x08\x08", bytes(100), b"\x12\xff\xff\xff\xff\x0f"]
)
def test_what_is_no_network(data: bytes, tiny_bundle: ModelBundle) -> None:
    with pytest.raises(BundleError, match="The network"):
        OnnxClassifier(replace(tiny_bundle, onnx=data))


def test_a_bundle_of_a_newer_kind_is_not_opened_by_half(tiny_bundle: ModelBundle) -> None:
    for other in (
        replace(tiny_bundle, calibration={"method": "temperature", "value": 1.4}),
        replace(tiny_bundle, thresholds={"unsure": 0.6}),
    ):
        with pytest.raises(BundleError, match=r"does not apply. Update Leuko"):
            OnnxClassifier(other)


# Weights outside the file


def pointing_elsewhere(where: str, location: str) -> onnx.ModelProto:
    model = onnx.load_from_string(make_onnx())
    tensor = model.graph.initializer[0]
    if where == "constant":
        node = onnx.helper.make_node("Constant", [], ["matrix"], value=tensor)
        model.graph.node.insert(0, node)
        model.graph.initializer.remove(tensor)
        tensor = model.graph.node[0].attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return model


@pytest.mark.parametrize("where", ["initializer", "constant"])
@pytest.mark.parametrize("order", ["as written", "value first"])
def test_weights_outside_the_file_are_refused(
    order: str,
    where: str,
    tiny_bundle: ModelBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ONNX Runtime would read the file from the current folder, though it was given bytes."""
    monkeypatch.chdir(tmp_path)
    matrix = onnx.numpy_helper.to_array(onnx.load_from_string(make_onnx()).graph.initializer[0])
    Path("w.bin").write_bytes(matrix.tobytes())
    data = pointing_elsewhere(where, "w.bin").SerializeToString()
    if order == "value first":
        key, value = b"\x0a\x08location", b"\x12\x05w.bin"
        assert data.count(key + value) == 1
        data = data.replace(key + value, value + key)
    with pytest.raises(BundleError, match="keeps weights outside its file"):
        OnnxClassifier(replace(tiny_bundle, onnx=data))
    os.chdir("/")


def test_weights_outside_a_subgraph_are_refused(tiny_bundle: ModelBundle) -> None:
    inner = pointing_elsewhere("initializer", "w.bin").graph
    model = onnx.load_from_string(make_onnx())
    model.graph.node.append(
        onnx.helper.make_node("If", ["cond"], ["out"], then_branch=inner, else_branch=inner)
    )
    with pytest.raises(BundleError, match="keeps weights outside its file"):
        OnnxClassifier(replace(tiny_bundle, onnx=model.SerializeToString()))


def test_a_place_is_refused_before_the_work_is_done(tmp_path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "file").write_text("")
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        archive.writestr("a.jpg", b"a cell")
    for name, part in (
        ("scans.zip", "is there already and is no bundle"),
        ("other", "holds other things"),
        ("folder.zip", "a folder stands where a file is needed"),
        ("file/bundle", "a file stands where a folder is needed"),
        ("file", "a file stands where a folder is needed"),
    ):
        with pytest.raises(OutputError, match=part):
            ModelBundle.check_place(tmp_path / name)
    ModelBundle.check_place(tmp_path / "new" / "bundle")
    ModelBundle.check_place(tmp_path / "bundle.zip")


def test_nothing_but_a_bundle_is_replaced(tiny_bundle: ModelBundle, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        archive.writestr("a.jpg", b"a cell")
    before = (tmp_path / "scans.zip").read_bytes()
    with pytest.raises(OutputError, match="is no bundle"):
        tiny_bundle.save(tmp_path / "scans.zip")
    assert (tmp_path / "scans.zip").read_bytes() == before
    tiny_bundle.save(tmp_path / "model.ZIP")
    tiny_bundle.save(tmp_path / "model.ZIP")
    assert ModelBundle.load(tmp_path / "model.ZIP").digest == tiny_bundle.digest
