"""Write constraints/py311.txt, py312.txt and py313.txt: one tested version of every package.

    python scripts/lock.py                      # python3.11, python3.12 and python3.13 on the PATH
    python scripts/lock.py python3.12           # only this one

Every interpreter resolves for itself, in a throwaway environment, since environment markers mean
the interpreter that runs them. Python 3.11 goes first and the others keep its versions where these
exist for them, so that results can be compared across Pythons. The files hold names and versions,
nothing else: no addresses and no digests, so that they serve behind any package index.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "constraints"
PYTHONS = ("python3.11", "python3.12", "python3.13")
PIP = "pip>=25.3"
BUILD = ["hatchling", "editables", "pip"]


def requirements() -> list[str]:
    """Everything that the base install and every extra ask for, Leuko itself left out."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    wanted = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += [line for line in extra if not line.startswith("leuko[")]
    return sorted({*wanted, *BUILD})


def normal(name: str) -> str:
    """A package name as the index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve(python: Path, prefer: Path | None) -> dict[str, str] | None:
    """Names and versions that pip would install, or None when `prefer` cannot be kept."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            str(python), "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet",
            "--only-binary=:all:", "--report", str(report), *requirements(),
        ]  # fmt: skip
        if prefer is not None:
            command += ["-c", str(prefer)]
        if subprocess.run(command, check=False).returncode != 0:
            return None
        installed = json.loads(report.read_text())["install"]
    return {normal(item["metadata"]["name"]): item["metadata"]["version"] for item in installed}


def lock(command: str) -> None:
    """Resolve for one interpreter and write its file."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([command, "-m", "venv", folder], check=True)
        python = Path(folder) / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", PIP], check=True)
        version = subprocess.run(
            [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        name = f"py{version.replace('.', '')}.txt"
        first = FOLDER / "py311.txt"
        prefer = first if name != first.name and first.exists() else None
        versions = resolve(python, prefer)
        if versions is None and prefer is not None:
            print(f"{name}: the versions of Python 3.11 cannot all be kept", file=sys.stderr)
            versions = resolve(python, None)
    if versions is None:
        raise SystemExit(f"{name}: pip found no set of versions that fits")
    # The same release under its other name, for the machines that get `tensorflow`.
    versions["tensorflow"] = versions["tensorflow-cpu"]
    head = f"# Tested versions for Python {version}, written by scripts/lock.py. Do not edit.\n"
    body = "".join(f"{package}=={versions[package]}\n" for package in sorted(versions))
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / name).write_text(head + body, encoding="utf-8")
    print(f"{FOLDER / name}: {len(versions)} packages")


if __name__ == "__main__":
    for interpreter in sys.argv[1:] or PYTHONS:
        lock(interpreter)
