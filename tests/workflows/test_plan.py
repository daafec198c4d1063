"""What is refused or remarked before anything long begins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from leuko.data.balance.write import PLAN_FILE
from leuko.data.dataset import Dataset
from leuko.errors import DataError, RecipeError, UsageError
from leuko.recipe import load_recipe
from leuko.workflows.plan import passed_over, plan_comparison, plan_training
from tiny import write_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for split in ("Train", "Test"):
        write_dataset(tmp_path / "set" / split, each=1)
    return tmp_path / "set"


def test_a_training_is_planned(dataset: Path, tmp_path: Path) -> None:
    assert plan_training(Dataset.open(dataset), "cnn") == load_recipe("cnn")
    assert plan_training(Dataset.open(dataset / "Train"), load_recipe("cnn"), seed=4).seed == 4
    with pytest.raises(RecipeError, match="no recipe"):
        plan_training(Dataset.open(dataset), "nothing")
    (dataset / "Train").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="has no training folder"):
        plan_training(Dataset.open(dataset), "cnn")
    table = tmp_path / "held.csv"
    table.write_text("path,label,split\nset/Test/Basophil/a.jpg,Basophil,test\n")
    with pytest.raises(DataError, match="has no training rows"):
        plan_training(Dataset.open(table), "cnn")


def test_a_comparison_is_planned(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    data = Dataset.open(dataset)
    opened = plan_comparison(data, ["cnn", load_recipe("mobilenetv2")], out)
    assert [recipe.name for recipe in opened] == ["cnn", "mobilenetv2"]
    assert not out.exists()
    with pytest.raises(DataError, match="has no test folder"):
        plan_comparison(Dataset.open(dataset / "Train"), ["cnn"], out)
    (out / "runs").mkdir(parents=True)
    with pytest.raises(UsageError, match="already holds a comparison"):
        plan_comparison(data, ["cnn"], out)
    assert plan_comparison(data, ["cnn"], out, resume=True) == [load_recipe("cnn")]
    rows = [
        f"{file.relative_to(tmp_path).as_posix()},{file.parent.name},{file.parts[-3]}"
        for file in dataset.rglob("*.jpg")
    ]
    (tmp_path / "cells.csv").write_text("\n".join(["path,label,split", *rows]))
    assert plan_comparison(Dataset.open(tmp_path / "cells.csv"), ["cnn"], tmp_path / "other")


def test_planning_imports_nothing_heavy() -> None:
    code = (
        "import sys, leuko.workflows.plan, leuko.render.terminal;"
        "sys.exit(any(name in sys.modules for name in ('keras', 'tensorflow', 'matplotlib')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_balanced_folder_that_is_not_read_is_said(dataset: Path) -> None:
    assert passed_over(Dataset.open(dataset)) == ""
    write_dataset(dataset / "Balanced_Train", each=1)
    said = "Balanced_Train is not read: training takes Train, and a recipe balances it by itself."
    assert passed_over(Dataset.open(dataset)) == said
    assert passed_over(Dataset.open(dataset / "Train")) == said
    assert passed_over(Dataset.open(dataset / "Balanced_Train")) == ""
    (dataset / "even").mkdir()
    (dataset / "even" / PLAN_FILE).write_text("{}")
    assert passed_over(Dataset.open(dataset)) == (
        "Balanced_Train and even are not read: training takes Train, and a recipe balances it by "
        "itself."
    )
