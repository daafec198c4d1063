"""What every test may ask for: the tiny model, and the command line run inside this process."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from leuko.bundle import ModelBundle
from leuko.runtime.classifier import OnnxClassifier


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Any:
    """Names that are no UTF-8 are not sent from process to process as they are."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, the fullest of them before others.

    Each file is run by one process; begun last, a long one would keep the others waiting.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def tiny_bundle() -> ModelBundle:
    """See `tiny.make_bundle`."""
    pytest.importorskip("onnx", reason="needs the extra 'train'")
    from tiny import make_bundle

    return make_bundle()


@pytest.fixture(scope="session")
def tiny_classifier(tiny_bundle: ModelBundle) -> OnnxClassifier:
    """The tiny model, opened."""
    return OnnxClassifier(tiny_bundle, threads=2)


@pytest.fixture(scope="session")
def tiny_model(tiny_bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a zip; leave it as it is."""
    path = tmp_path_factory.mktemp("model") / "tiny.zip"
    tiny_bundle.save(path)
    return path


@pytest.fixture(scope="session")
def sklearn_metrics() -> Any:
    """Those of scikit-learn; imported by who asks, and not by every process that collects."""
    return pytest.importorskip("sklearn.metrics", reason="needs the extra 'report'")


@pytest.fixture(scope="session")
def scipy_stats() -> Any:
    """Those of SciPy, likewise."""
    return pytest.importorskip("scipy.stats", reason="needs the extra 'report'")


@pytest.fixture(scope="session")
def raabin() -> Path:
    """Real cells, where there are any."""
    data = os.environ.get("LEUKO_DATA")
    folder = Path(data or ".") / "raabin-wbc-288"
    if not data or not folder.is_dir():
        pytest.skip("LEUKO_DATA does not point to a folder with raabin-wbc-288")
    return folder


@pytest.fixture
def heard_ctrl_c() -> Iterator[None]:
    """Let programs started here hear SIGINT: a shell's job in the background ignores it.

    So does every program that it starts, and a test that presses Ctrl-C would wait for ever.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class Outcome:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def leuko(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Run `leuko ARGUMENTS` through its real entry point, in this process."""
    from leuko.cli.main import main

    for name in ("LEUKO_SEED", "LEUKO_WORKERS", "LEUKO_LOG_FILE", "LEUKO_MODEL", "LEUKO_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["leuko", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        code = stop.value.code
        assert "Traceback" not in err
        return Outcome(code if isinstance(code, int) else int(code is not None), out, err)

    return run
