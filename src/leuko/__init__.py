"""Leuko: differential counts of white blood cells from microscope images. Research use only.

The names below are imported when they are first asked for, so ``import leuko`` stays quick and
works without the extras that training and reports need.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "ClassScheme": "leuko.scheme",
    "Dataset": "leuko.data.dataset",
    "LeukoError": "leuko.errors",
    "Manifest": "leuko.manifest",
    "ModelBundle": "leuko.bundle",
    "Prediction": "leuko.prediction",
    "PredictionTable": "leuko.prediction",
    "Recipe": "leuko.recipe",
    "Reporter": "leuko.support.reporter",
    "RunOptions": "leuko.training.options",
    "SmearPlan": "leuko.data.synth",
    "adapt": "leuko.runtime.adapt.adapt",
    "audit_dataset": "leuko.data.audit.audit",
    "compare": "leuko.workflows.compare",
    "differential": "leuko.evaluation.counting.differential",
    "draw_dataset": "leuko.data.synth",
    "evaluate": "leuko.workflows.evaluate",
    "explain": "leuko.runtime.explain",
    "find_cell": "leuko.cells",
    "find_splits": "leuko.data.reading",
    "list_recipes": "leuko.recipe",
    "load": "leuko.runtime.zoo",
    "load_recipe": "leuko.recipe",
    "load_scheme": "leuko.scheme",
    "predict_partition": "leuko.batch.partition",
    "read_csv": "leuko.data.reading",
    "read_folder": "leuko.data.reading",
    "read_split": "leuko.data.reading",
    "train": "leuko.training.run",
    "write_balanced": "leuko.data.balance.write",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'leuko' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
    except Exception as error:
        from leuko.support.packages import fault_behind

        if fault := fault_behind(error):
            raise fault from error
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
