"""Make the pictures of the README, of drawn cells alone.

    python scripts/draw_pictures.py docs/pictures

Takes some four minutes, as two networks are trained for the last one. Needs the extra `train`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from leuko.render.plots import interval_plot
from leuko.render.style import Style, style

SHOWN = 15
WIDEST = 1400
FONT_SIZE = 15


def leuko(*arguments: str, folder: Path) -> str:
    """Run a command as a user would; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "leuko", *arguments],
        cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


def shrink(path: Path) -> None:
    """Make a picture no wider than a page shows it, in 256 colours."""
    with Image.open(path) as picture:
        picture.thumbnail((WIDEST, WIDEST))
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def terminal(text: str, path: Path, paint: Style) -> None:
    """Draw text as a terminal shows it."""
    font = ImageFont.truetype(findfont("DejaVu Sans Mono"), FONT_SIZE)
    lines = text.rstrip().splitlines()
    wide, tall = round(font.getlength("0") * 82) + 40, round(FONT_SIZE * 1.45 * len(lines)) + 40
    picture = Image.new("RGB", (wide, tall), paint.card)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((20, 20 + number * FONT_SIZE * 1.45), line, fill=paint.ink, font=font)
    picture.save(path, optimize=True)


def main(out: Path) -> None:
    """Write every picture."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        leuko("data", "draw", "Drawn", "--train", "60", "--test", "60", folder=work)
        every = [sorted(place.iterdir()) for place in sorted((work / "Drawn/Test").iterdir())]
        chosen = [files[number] for number in range(12) for files in every if number < len(files)]
        (work / "cells.txt").write_text("\n".join(map(str, sorted(chosen[:SHOWN]))))
        leuko("predict", "cells.txt", "--picture", str(out / "sort.png"), folder=work)
        one = next(file for file in every[3] if file.exists())
        leuko("predict", str(one), "--explain", "heat", folder=work)
        (out / "explain.png").write_bytes(next((work / "heat").iterdir()).read_bytes())
        for file in ("sort.png", "explain.png"):
            shrink(out / file)
        counted = leuko("count", "Drawn/Test", folder=work)
        leuko("demo", "--out", "demo", folder=work)
        comparison = json.loads((work / "demo/compare/comparison.json").read_text())
        for ending, dark in (("", False), ("-dark", True)):
            paint = style(dark=dark)
            terminal(f"$ leuko count Drawn/Test\n{counted}", out / f"count{ending}.png", paint)
            figure = interval_plot(comparison, colours=paint)
            figure.savefig(out / f"compare{ending}.png", dpi=130, facecolor=paint.card)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
