"""Check the documents: links that resolve, commands that exist, no private paths, one version.

    python scripts/check_docs.py

Reads every Markdown file that git knows or would add. Exits with 1 and one line for each fault.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent

LINK = re.compile(
    r"(?<!\\)!?\[[^\]\n]*\]\(<?([^()\s<>]*(?:\([^()\s]*\)[^()\s]*)*)>?(?:\s+\"[^\"]*\")?\)"
)
FENCE = re.compile(r"^(```|~~~)(\w*)[^\n]*\n(.*?)^\1", re.MULTILINE | re.DOTALL)
# A path that only one machine has. The first character after the slash keeps "and/or" out.
MACHINE_PATH = re.compile(r"(?<![\w.<>{}$/-])/(?:root|home|work|tmp|Users|mnt)/[\w.]")
PLACEHOLDER = re.compile(r"@@\w+@@")


def files(*patterns: str) -> list[Path]:
    """Files of the project that match, tracked or new, never the ignored ones."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return sorted({ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()})


def anchor(heading: str) -> str:
    """The anchor that a Markdown viewer gives a heading."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    kept = [c for c in text if c in "-_ " or unicodedata.category(c)[0] in "LN"]
    return "".join(kept).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """All anchors of a document."""
    plain = FENCE.sub("", text)
    return {anchor(line) for line in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", plain, re.MULTILINE)}


def broken_links(path: Path, text: str) -> Iterator[str]:
    """Relative links that lead nowhere."""
    for target in LINK.findall(FENCE.sub("", text)):
        if not target or re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, fragment = target.partition("#")
        other = (path.parent / unquote(name)).resolve() if name else path
        if not other.exists():
            yield f"the link {target!r} leads nowhere"
        elif (
            fragment
            and other.suffix == ".md"
            and fragment not in anchors(other.read_text(encoding="utf-8"))
        ):
            yield f"{target!r}: {other.name} has no heading with that anchor"


def command_lines(text: str) -> Iterator[list[str]]:
    """Every `leuko ...` line of the shell blocks, and every `leuko ...` in code spans."""
    for _, language, body in FENCE.findall(text):
        if language not in ("", "sh", "bash", "shell", "console"):
            continue
        for line in body.replace("\\\n", " ").splitlines():
            yield from words(line)
    for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", FENCE.sub("", text)):
        yield from words(span)


def words(line: str) -> Iterator[list[str]]:
    """The words after `leuko`, if the line is a call of it."""
    text = line.strip().removeprefix("$ ").strip()
    if not re.match(r"leuko( |$)", text):
        return
    try:
        yield shlex.split(text, comments=True)[1:]
    except ValueError:
        yield text.split()[1:]


def wrong_command(arguments: list[str], root: Any) -> str | None:
    """Why the command or one of its options does not exist, or None."""
    command, name, rest = root, "leuko", list(arguments)
    while rest and hasattr(command, "commands"):
        word = rest[0]
        if word.startswith("-") or not re.match(r"[a-z]", word):
            break
        alternatives = word.split("|")
        missing = [one for one in alternatives if one not in command.commands]
        if missing:
            return f"`{name} {missing[0]}` is not a command"
        command, name, rest = command.commands[alternatives[-1]], f"{name} {word}", rest[1:]
    known = {"--help"}
    for parameter in (*root.params, *command.params):
        known.update(parameter.opts, parameter.secondary_opts)
    for word in rest:
        option = word.strip("[]").partition("=")[0]
        if re.match(r"--[a-z]", option) and option not in known:
            return f"`{name}` has no option {option}"
    return None


def unnamed_commands(command: Any, name: str, text: str) -> Iterator[str]:
    """Commands that a document leaves out."""
    for child, value in getattr(command, "commands", {}).items():
        if getattr(value, "hidden", False):
            continue
        if hasattr(value, "commands"):
            yield from unnamed_commands(value, f"{name} {child}", text)
        elif f"{name} {child}" not in text:
            yield f"`{name} {child}` is not described"


def version_faults() -> Iterator[str]:
    """Places that state another version than the package."""
    init = ROOT / "src/leuko/__init__.py"
    found = re.search(r"__version__[^=\n]*= \"([^\"]+)\"", init.read_text(encoding="utf-8"))
    if not found:
        yield "src/leuko/__init__.py: no __version__"
        return
    version = found[1]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    if not re.search(rf"^version: {re.escape(version)}$", citation, re.MULTILINE):
        yield f"CITATION.cff: the version is not {version}, as in src/leuko/__init__.py"
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(version)}\b", changes, re.MULTILINE):
        yield f"CHANGELOG.md: no section for {version}"


def main() -> int:
    """Check everything and print the faults."""
    import typer

    from leuko.cli.main import app

    root = typer.main.get_command(app)
    faults = list(version_faults())
    documents = files("*.md")
    for path in documents:
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        faults += [f"{name}: {fault}" for fault in broken_links(path, text)]
        faults += [f"{name}: {p} is still to be filled in" for p in PLACEHOLDER.findall(text)]
        wrong = (wrong_command(arguments, root) for arguments in command_lines(text))
        faults += [f"{name}: {fault}" for fault in wrong if fault]
    commands = ROOT / "docs/reference/commands.md"
    described = commands.read_text(encoding="utf-8")
    faults += [f"{commands.name}: {fault}" for fault in unnamed_commands(root, "leuko", described)]
    for path in files("*.md", "*.py", "*.toml", "*.ipynb", "*.html", "*.cff", "Makefile", "*.txt"):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        faults += [
            f"{name}: {text[m.start() : m.start() + 40].splitlines()[0]!r} is a path of one machine"
            for m in MACHINE_PATH.finditer(text)
        ]
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"Documents: {len(documents)} checked, {len(faults)} faults.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
