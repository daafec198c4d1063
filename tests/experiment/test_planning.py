"""What is refused or remarked before anything long begins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from leuko.data.balance.write import PLAN_FILE
from leuko.errors import DataError, RecipeError, UsageError
from leuko.experiment.planning import passed_over, plan_comparison, plan_training
from leuko.recipe import load_recipe
from tiny import write_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for split in ("Train", "Test"):
        write_dataset(tmp_path / "set" / split, each=1)
    return tmp_path / "set"


def test_a_training_is_planned(dataset: Path, tmp_path: Path) -> None:
    assert plan_training(dataset, "cnn") == load_recipe("cnn")
    assert plan_training(dataset / "Train", load_recipe("cnn"), seed=4).seed == 4
    with pytest.raises(RecipeError, match="no recipe"):
        plan_training(tmp_path / "none", "nothing")
    with pytest.raises(DataError, match="does not exist"):
        plan_training(tmp_path / "none", "cnn")
    (dataset / "Train").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="has no training folder"):
        plan_training(dataset, "cnn")


def test_a_comparison_is_planned(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    opened = plan_comparison(dataset, ["cnn", load_recipe("mobilenetv2")], out)
    assert [recipe.name for recipe in opened] == ["cnn", "mobilenetv2"]
    assert not out.exists()
    with pytest.raises(DataError, match="has no test folder"):
        plan_comparison(dataset / "Train", ["cnn"], out)
    (out / "runs").mkdir(parents=True)
    with pytest.raises(UsageError, match="already holds a comparison"):
        plan_comparison(dataset, ["cnn"], out)
    assert plan_comparison(dataset, ["cnn"], out, resume=True) == [load_recipe("cnn")]


def test_planning_imports_nothing_heavy() -> None:
    code = (
        "import sys, leuko.experiment.planning, leuko.render.terminal;"
        "sys.exit(any(name in sys.modules for name in ('keras', 'tensorflow', 'matplotlib')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_balanced_folder_that_is_not_read_is_said(dataset: Path) -> None:
    assert passed_over(dataset) == ""
    write_dataset(dataset / "Balanced_Train", each=1)
    said = "Balanced_Train is not read: training takes Train, and a recipe balances it by itself."
    assert passed_over(dataset) == passed_over(dataset / "Train") == said
    assert passed_over(dataset / "Balanced_Train") == ""
    (dataset / "even").mkdir()
    (dataset / "even" / PLAN_FILE).write_text("{}")
    assert passed_over(dataset) == (
        "Balanced_Train and even are not read: training takes Train, and a recipe balances it by "
        "itself."
    )
