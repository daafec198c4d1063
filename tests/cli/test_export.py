"""``leuko export`` and ``leuko models`` as they are typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leuko.bundle import ModelBundle
from leuko.support.artifacts import digest_json, json_text
from tiny import open_to_all, unprivileged, write_dataset

Leuko = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small convolutional network as a zip."""
    pytest.importorskip("onnx", reason="needs the extra 'export'")
    from convnet import make_convnet_bundle

    path = tmp_path_factory.mktemp("model") / "convnet.zip"
    make_convnet_bundle(width=70).save(path)
    return path


def one_sentence(done: Any) -> str:
    """The error, which must be one line, with nothing on standard output."""
    lines = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, done.err
    assert done.out == ""
    return str(lines[0])


# Export


@pytest.mark.slow
def test_export_int8(model: Path, tmp_path: Path, leuko: Leuko) -> None:
    labelled = write_dataset(tmp_path / "Test", each=9)
    arguments = ("export", model, "--int8", "--check", labelled, "--out", tmp_path / "a.zip")
    done = leuko(*arguments)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{tmp_path / 'a.zip'}: 0.0")
    assert "balanced accuracy 1.0000, the original's 1.0000 on the same 30 pictures" in done.out
    assert len(done.out.splitlines()) == 1
    document = json.loads(leuko(*arguments, "--json", "--quiet").out)
    assert document["digest"] == ModelBundle.load(tmp_path / "a.zip").digest
    assert next(iter(document.items())) == ("schema", "leuko.export/1")
    assert document["bytes"] < document["source_bytes"]
    assert document["check"]["n"] == 30
    shown = leuko("models", "show", tmp_path / "a.zip")
    assert "from: int8 of convnet, recipe none" in shown.out
    assert "validation: 30 images of 2 slides given to leuko export --check" in shown.out
    predicted = leuko("predict", labelled, "-m", tmp_path / "a.zip", "--json", "--quiet")
    assert json.loads(predicted.out)["predicted"] == 45


@pytest.mark.slow
def test_export_float16_says_what_it_knows(model: Path, tmp_path: Path, leuko: Leuko) -> None:
    done = leuko("export", model, "--float16", "--out", tmp_path / "half")
    assert done.code == 0
    assert "accuracy not measured" in done.out
    assert (tmp_path / "half" / "bundle.json").is_file()
    assert " MB instead of 0.0" in done.out
    again = leuko("export", tmp_path / "half", "--float16", "--out", tmp_path / "quarter")
    assert again.code == 0
    assert " MB, no smaller, as convnet-float16 is float16 already; probabilities" in again.out
    copy = leuko("export", model, "--out", tmp_path / "copy")
    assert "smaller" not in copy.out
    assert "instead" not in copy.out


@pytest.mark.parametrize("command", [["predict", "cells", "-m"], ["models", "show"]])
def test_an_export_for_another_runtime_is_no_bundle(
    command: list[str], tmp_path: Path, leuko: Leuko
) -> None:
    for name in ("export.json", "goldens.npz", "card.md", "model.tflite"):
        (tmp_path / name).touch()
    done = leuko(*command, tmp_path)
    assert done.code == 1
    assert "is an export for another runtime" in one_sentence(done)
    assert "opens only ONNX bundles" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{model}", "--int8"], 2, "Give --check FOLDER (labelled) or --calibrate FOLDER"),
        (["{model}", "--int8", "--float16"], 2, "exclude each other"),
        (["{model}", "--format", "tflite"], 2, "known are onnx, litert"),
        (["{model}", "--format", "litert", "--out", "{new}.zip"], 2, "is written as a folder"),
        (["{model}", "--calibrate", "{empty}"], 2, "--calibrate is for --int8"),
        (["resnet"], 1, "There is no bundled model 'resnet'"),
        (["{empty}/none.zip"], 1, "There is no model at"),
        (["{broken}"], 1, "cannot be read as a bundle"),
        (["{model}", "--int8", "--check", "{empty}"], 1, "no class folders"),
        (["{model}", "--int8", "--check", "{empty}/none"], 1, "does not exist"),
        (["{model}", "--int8", "--calibrate", "{empty}"], 1, "has no images in it"),
        (["{model}", "--float16", "--out", "{broken}/a.zip"], 1, "a file stands where a folder"),
        (["{model}", "--float16", "--out", "{mine}"], 1, "such as thesis.txt"),
        (["{model}", "--float16", "--out", "{broken}"], 1, "is no bundle"),
        (["{model}", "--float16", "--out", "/proc/a.zip"], 1, "cannot be written"),
        (["{model}", "--format", "litert", "--out", "{new}"], 2, "There is no LiteRT of convnet"),
        (["{model}", "--format", "litert", "--out", "{text}"], 1, "a file stands where a folder"),
    ],
)
def test_bad_input(
    arguments: list[str], code: int, message: str, model: Path, tmp_path: Path, leuko: Leuko
) -> None:
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 not really")
    (tmp_path / "text").write_text("a file")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    places = {"model": model, "broken": tmp_path / "broken.zip", "empty": tmp_path / "empty",
              "mine": tmp_path / "mine", "new": tmp_path / "new",
              "text": tmp_path / "text"}  # fmt: skip
    before = sorted(path.name for path in tmp_path.rglob("*"))
    words = [word.format(**places) for word in arguments]
    if "--out" not in words:
        words += ["--out", str(tmp_path / "new" / "a.zip")]
    done = leuko("export", *words)
    assert done.code == code
    assert message in one_sentence(done)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_no_permission(model: Path, tmp_path: Path, leuko: Leuko) -> None:
    open_to_all(tmp_path)
    open_to_all(model.parent)
    model.chmod(0o644)
    with unprivileged():
        done = leuko("export", model, "--float16", "--out", tmp_path / "a.zip")
    assert done.code == 1
    assert "permission is denied; choose another folder" in one_sentence(done)


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("onnx", ["--float16"], "export"),
        ("tensorflow", ["--format", "litert"], "train"),
    ],
)
def test_a_missing_package_is_one_sentence(
    package: str, arguments: list[str], extra: str, model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, leuko: Leuko,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, package, None)  # what an import then finds: nothing
    ModelBundle.load(model).save(tmp_path / "run" / "bundle")
    (tmp_path / "run" / "model.keras").touch()
    done = leuko("export", tmp_path / "run", *arguments, "--out", tmp_path / "a")
    assert done.code == 1
    sentence = one_sentence(done)
    assert f"needs the package '{package}'" in sentence
    assert f"pip install '.[{extra}]'" in sentence
    assert not (tmp_path / "a").exists()


# Models


def test_models_list_is_a_table(leuko: Leuko) -> None:
    done = leuko("models", "list")
    lines = done.out.splitlines()
    assert lines[0].split() == ["name", "input", "parameters", "network", "validated", "from"]
    row = next(line for line in lines if line.startswith("default "))
    assert " MB float32" in row
    assert "balanced 0." in row
    assert "recipe " in row
    assert row.index("recipe ") == lines[0].index("from")
    document = json.loads(leuko("models", "list", "--json").out)["models"]["default"]
    assert document["parameters"] > 10_000
    assert document["bytes"] > 10_000
    assert document["weights"] == "float32"
    assert document["from"].startswith("recipe ")


def test_models_show_and_card_take_any_bundle(model: Path, tmp_path: Path, leuko: Leuko) -> None:
    ModelBundle.load(model).save(tmp_path / "run" / "bundle")
    for place in (model, tmp_path / "run", tmp_path / "run" / "bundle"):
        shown = leuko("models", "show", place)
        assert shown.code == 0
        assert "input: 24 x 24 pixels" in shown.out
        assert "calibration: method none" in shown.out
        assert "validation accuracy: 0.9900" in shown.out
        assert leuko("models", "card", place).out == "# Convnet\n\nTakes the nearest colour.\n"
    document = json.loads(leuko("models", "card", model, "--json").out)
    assert list(document) == ["schema", "name", "digest", "card"]
    assert document["schema"] == "leuko.card/1"
    assert json.loads(leuko("models", "show", model, "--json").out)["crop"] == 1.0


def newer(path: Path, target: Path) -> Path:
    """The same bundle, as a later version of Leuko with other files would write it."""
    ModelBundle.load(path).save(target)
    document = json.loads((target / "bundle.json").read_text())
    document["schema"] = "leuko.bundle/2"
    document.pop("seal")
    document["seal"] = digest_json(document)
    (target / "bundle.json").write_text(json_text(document))
    return target


def damaged(path: Path, target: Path) -> Path:
    """The same bundle with one bit of its network turned."""
    ModelBundle.load(path).save(target)
    data = bytearray((target / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (target / "model.onnx").write_bytes(data)
    return target


def altered(path: Path, target: Path) -> Path:
    """The same bundle with another crop, and digests that fit it."""
    ModelBundle.load(path).save(target)
    document = json.loads((target / "bundle.json").read_text())
    document["preprocess"]["crop"] = 0.5
    decides = {key: document[key] for key in ("classes", "preprocess", "calibration", "thresholds")}
    document["digest"] = digest_json({"onnx": document["files"]["model.onnx"], **decides})
    document.pop("seal")
    document["seal"] = digest_json(document)
    (target / "bundle.json").write_text(json_text(document))
    return target


@pytest.mark.parametrize("command", [["models", "show"], ["models", "card"], ["export"]])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (newer, "was written by a newer Leuko (leuko.bundle/2)"),
        (damaged, "model.onnx is not the file that was written"),
        (altered, "does not answer as it did when it was written"),
    ],
)
def test_a_model_that_cannot_be_used(
    command: list[str], make: Callable[[Path, Path], Path], message: str, model: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leuko: Leuko,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)  # where `export` would write
    done = leuko(*command, make(model, tmp_path / "m"))
    assert done.code == 1
    assert message in one_sentence(done)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("command", ["show", "card"])
def test_an_unknown_model(command: str, leuko: Leuko) -> None:
    done = leuko("models", command, "resnet50")
    assert done.code == 1
    sentence = one_sentence(done)
    assert "There is no bundled model 'resnet50' (there is: cnn, default, small" in sentence
    assert leuko("models", command).code == 2
    assert leuko("models", "describe", "default").code == 2
