"""A bundle that looks again from another distance on than the one that was fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from leuko.bundle import ModelBundle
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.trust.calibrate import without_trust
from leuko.runtime.trust.decide import Trust, feature_distances


def with_limit(bundle: ModelBundle, limit: float) -> ModelBundle:
    """The same with another limit, and goldens that fit."""
    limits = {**bundle.thresholds, "again": limit}
    trust = replace(Trust.of(bundle), limits=limits)
    bare = without_trust(bundle)
    outputs = OnnxClassifier(bare, threads=1, features=True).ask([*bare.goldens.pictures], trust)
    answers = trust.calibrate(outputs[0]).astype(np.float32)
    assert trust.space is not None
    distances = feature_distances(trust.space, outputs[1]).astype(np.float32)
    return replace(
        bundle,
        thresholds=limits,
        goldens=replace(bare.goldens, probabilities=answers),
        space=replace(trust.space, goldens=distances),
    )
