"""A comparison as one frozen value: models with their runs, paired tests, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from leuko.evaluation.paired import PairedTest, SeedMean, mean_over_seeds
from leuko.evaluation.report import SetResult
from leuko.support.artifacts import RESEARCH_USE, schema

__all__ = ["ComparisonReport", "Model", "Run", "recipe_titles", "set_means"]


@dataclass(frozen=True)
class Run:
    """One training of a recipe, and what it reaches on every set.

    Attributes
    ----------
    seed : int
    run : str
        Its folder, inside the comparison's.
    seconds : dict of str to float
        Of each part of the training, and their ``total``.
    epochs : int or None
    predict_images_per_second : float or None
        On the test set; None, here and below, where a document does not know.
    bundle_bytes, parameters : int or None
    images : dict of str to int
        ``training`` and ``validation``.
    evaluations : dict of str to SetResult
        By set: ``validation``, ``test``, then unseen folders.
    history : sequence of dict
        Loss and accuracy by epoch.
    """

    seed: int
    run: str
    seconds: Mapping[str, float]
    epochs: int | None
    predict_images_per_second: float | None
    bundle_bytes: int | None
    parameters: int | None
    images: Mapping[str, int]
    evaluations: Mapping[str, SetResult]
    history: Sequence[Mapping[str, float]] = ()

    def to_dict(self) -> dict[str, Any]:
        """The run, as ``comparison.json`` holds it: without its history."""
        return {
            "seed": self.seed,
            "run": self.run,
            "seconds": dict(self.seconds),
            "epochs": self.epochs,
            "predict_images_per_second": self.predict_images_per_second,
            "bundle_bytes": self.bundle_bytes,
            "parameters": self.parameters,
            "images": dict(self.images),
            "evaluations": {name: dict(one.document) for name, one in self.evaluations.items()},
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Run:
        """The same from the entry."""
        return cls(
            seed=document["seed"],
            run=document.get("run") or "",
            seconds=document.get("seconds") or {},
            epochs=document.get("epochs"),
            predict_images_per_second=document.get("predict_images_per_second"),
            bundle_bytes=document.get("bundle_bytes"),
            parameters=document.get("parameters"),
            images=document.get("images") or {},
            evaluations={
                name: SetResult.from_dict(one) for name, one in document["evaluations"].items()
            },
        )


@dataclass(frozen=True)
class Model:
    """One recipe of a comparison, with all its seeds.

    Attributes
    ----------
    recipe, title : str
        No two models of a comparison share either; see `recipe_titles`.
    transfer : bool or None
        Whether it starts from weights of another task.
    split : str or None
        How its validation rows were set aside; see `leuko.recipe.DataSettings`.
    size : tuple of int
        Height and width of its input; empty where a document does not know.
    runs : tuple of Run
        One for each seed.
    mean : dict of str to dict of str to SeedMean
        By set, then by metric; see `set_means`.
    published : dict of str to float
        What the literature gives.
    history : sequence of dict
        Of the first run.
    start : dict
        What it starts from, as ``comparison.json`` holds it.
    """

    recipe: str
    title: str
    transfer: bool | None
    split: str | None
    size: tuple[int, ...]
    runs: tuple[Run, ...]
    mean: Mapping[str, Mapping[str, SeedMean]]
    published: Mapping[str, float]
    history: Sequence[Mapping[str, float]]
    start: Mapping[str, Any]

    def results(self, set_name: str) -> list[SetResult]:
        """What its runs reach on a set, those that were evaluated there."""
        return [one for run in self.runs if (one := run.evaluations.get(set_name)) is not None]

    def to_dict(self) -> dict[str, Any]:
        """The model, as ``comparison.json`` holds it."""
        return {
            "recipe": self.recipe,
            "title": self.title,
            "transfer": self.transfer,
            "split": self.split,
            "input": list(self.size),
            "parameters": self.runs[0].parameters,
            "bundle_bytes": self.runs[0].bundle_bytes,
            "runs": [run.to_dict() for run in self.runs],
            "mean": {
                name: {metric: asdict(one) for metric, one in means.items()}
                for name, means in self.mean.items()
            },
            "published": dict(self.published) or None,
            "history": [dict(row) for row in self.history],
            "start": dict(self.start),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Model:
        """The same from the entry."""
        return cls(
            recipe=document["recipe"],
            title=document.get("title") or document["recipe"],
            transfer=document.get("transfer"),
            split=document.get("split"),
            size=tuple(document.get("input") or ()),
            runs=tuple(Run.from_dict(run) for run in document.get("runs") or ()),
            mean={
                name: {metric: SeedMean(**one) for metric, one in means.items()}
                for name, means in document["mean"].items()
            },
            published=document.get("published") or {},
            history=document.get("history") or (),
            start=document.get("start") or {},
        )


@dataclass(frozen=True)
class ComparisonReport:
    """Recipes side by side on one data set.

    Attributes
    ----------
    dataset : str
        The folder's name.
    data_digest : dict of str to str
        By set, ``train`` among them.
    models : tuple of Model
    paired : tuple of PairedTest
        Every pair on every set, seed by seed.
    notes : tuple of str
        What reading the data told, in sentences.
    audit : dict
        ``audit.json`` of the data.
    command, version : str
        That made it.
    machine, versions : dict
        That it was made on and with.
    total_seconds : float
    """

    dataset: str
    data_digest: Mapping[str, str]
    models: tuple[Model, ...]
    paired: tuple[PairedTest, ...]
    notes: tuple[str, ...]
    audit: Mapping[str, Any]
    command: str
    version: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    total_seconds: float

    @property
    def titles(self) -> dict[str, str]:
        """Titles by recipe, each given once."""
        return recipe_titles({model.recipe: model.title for model in self.models})

    @property
    def seeds(self) -> list[int]:
        """The seeds of all runs, in order."""
        return sorted({run.seed for model in self.models for run in model.runs})

    @property
    def shared_slides(self) -> int:
        """How many slides Train and Test have in common."""
        for pair in (self.audit.get("shared_slides") or {}).get("between") or ():
            if set(pair["splits"]) == {"train", "test"}:
                return int(pair["count"])
        return 0

    def to_dict(self, *, warnings: Sequence[str], verdict: str) -> dict[str, Any]:
        """Everything, as ``comparison.json`` holds it.

        Parameters
        ----------
        warnings : sequence of str
            For a person.
        verdict : str
            A paragraph; `leuko.render.verdict.comparison_document` makes and gives both.

        Returns
        -------
        dict
            Only what JSON can hold.
        """
        return {
            "schema": schema("comparison"),
            "research_use": RESEARCH_USE,
            "version": self.version,
            "command": self.command,
            "dataset": self.dataset,
            "data_digest": dict(self.data_digest),
            "seeds": self.seeds,
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "audit": dict(self.audit),
            "balance": self._balance(),
            "models": [model.to_dict() for model in self.models],
            "paired": [test.to_dict() for test in self.paired],
            "warnings": list(warnings),
            "verdict": verdict,
            "total_seconds": self.total_seconds,
        }

    def _balance(self) -> dict[str, Any]:
        """What balancing on disk took; nothing where every recipe balances on the fly."""
        runs = [run for one in self.models for run in one.runs if "balance" in run.seconds]
        if not runs:
            return {}
        return {
            "seconds": round(sum(run.seconds["balance"] for run in runs), 1),
            "images": sum(sum(run.images.values()) for run in runs),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> ComparisonReport:
        """Read a ``comparison.json``; its sentences stay there."""
        return cls(
            dataset=document.get("dataset") or "",
            data_digest=document.get("data_digest") or {},
            models=tuple(Model.from_dict(one) for one in document["models"]),
            paired=tuple(PairedTest.from_dict(one) for one in document.get("paired") or ()),
            notes=(),
            audit=document.get("audit") or {},
            command=document.get("command") or "",
            version=document.get("version") or "",
            machine=document.get("machine") or {},
            versions=document.get("versions") or {},
            total_seconds=document.get("total_seconds") or 0.0,
        )


def set_means(runs: Sequence[Run]) -> dict[str, dict[str, SeedMean]]:
    """Average one recipe's runs.

    Parameters
    ----------
    runs : sequence of Run
        All evaluated on the same sets.

    Returns
    -------
    dict of str to dict of str to SeedMean
        By set, then by metric.
    """
    return {
        name: mean_over_seeds([run.evaluations[name] for run in runs])
        for name in runs[0].evaluations
    }


def recipe_titles(titles: Mapping[str, str]) -> dict[str, str]:
    """Give every recipe a title that no other has.

    Parameters
    ----------
    titles : dict of str to str
        The recipes' own, by recipe.

    Returns
    -------
    dict of str to str
        By recipe, in order; the recipes' names where titles repeat.

    Examples
    --------
    >>> recipe_titles({"a": "CNN", "b": "CNN"})
    {'a': 'a', 'b': 'b'}
    """
    repeated = len(set(titles.values())) < len(titles)
    return {recipe: recipe for recipe in titles} if repeated else dict(titles)
