"""Pictures and the answers of one process, which every engine must give."""

from __future__ import annotations

import pytest

from batch.drawn import Cells, write_cells
from leuko.batch.partition import predict_partition
from leuko.prediction_files import csv_text
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.sources import expand


@pytest.fixture(scope="session")
def cells(tiny_classifier: OnnxClassifier, tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """Two hundred files; leave them as they are."""
    folder = write_cells(tmp_path_factory.mktemp("batch") / "cells", 200)
    table = predict_partition(expand([str(folder)]), tiny_classifier)
    assert (len(table.predicted), len(table.rejected)) == (190, 10)
    return Cells(folder, csv_text(table))
