"""Errors say what to do, and come home from worker processes whole."""

from __future__ import annotations

import pickle

import pytest

import leuko.errors as errors
from leuko.errors import ImageError, InstallError, LeukoError, MissingExtraError, UsageError


@pytest.mark.parametrize("name", errors.__all__)
def test_one_tree(name: str) -> None:
    assert issubclass(getattr(errors, name), LeukoError)


def test_exit_codes() -> None:
    codes = {name: getattr(errors, name).exit_code for name in errors.__all__}
    assert {name for name, code in codes.items() if code == 2} == {"UsageError"}
    assert set(codes.values()) == {1, 2}


def test_missing_extra_names_the_command() -> None:
    error = MissingExtraError("Training", "train", "keras")
    assert "pip install '.[train]'" in str(error)
    assert str(error).startswith("Training needs")


@pytest.mark.parametrize(
    "error",
    [
        ImageError("corrupt", "The PNG file is damaged."),
        InstallError("pillow", "PIL.Image is not there"),
        MissingExtraError("A plot", "report", "matplotlib"),
        UsageError("Give a number."),
    ],
)
def test_pickle_keeps_everything(error: LeukoError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
