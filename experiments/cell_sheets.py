"""Make contact sheets of what the cell finder sees, to be looked at by a person.

    python experiments/cell_sheets.py FOLDER --out SHEETS [--each 24] [--seed 0] [--width 20]

FOLDER holds pictures, or folders of pictures; each folder gives one sheet. A cell is shown twice:
as it came, with the nucleus outlined in green, the cell in yellow and the crop's frame in white,
and below as its canonical crop. The line below says what was measured: nucleus and cell in
micrometres, pixels to a micrometre and by how many red cells (r), confidence (c). Pictures in
which nothing was found have a red frame. Without FOLDER, drawn smears are shown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from leuko.cells import CellFinding, canonical_crop, find_cell
from leuko.data.synth import draw_cell, draw_slide_style
from leuko.imaging.decode import IMAGE_SUFFIXES, encode_png, read_image
from leuko.imaging.preprocess import PreprocessSpec
from leuko.scheme import load_scheme

CLASSES = load_scheme("differential-5").names

TILE, COLUMNS = 150, 12


def outlined(pixels: np.ndarray, finding: CellFinding, spec: PreprocessSpec) -> np.ndarray:
    """Draw outlines on an enlarged copy."""
    rows, columns = pixels.shape[:2]
    scale = TILE / max(rows, columns)
    shape = (round(columns * scale), round(rows * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    picture = cv2.resize(pixels, shape, interpolation=method)
    for mask, colour in ((finding.cell, (255, 230, 0)), (finding.nucleus, (0, 255, 0))):
        large = cv2.resize(mask * np.uint8(255), shape, interpolation=cv2.INTER_LINEAR)
        lines, _ = cv2.findContours(
            (large > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(picture, lines, -1, colour, 1)
    matrix = canonical_crop(pixels, finding, spec).matrix
    side = spec.size[0]
    corners = np.array([[0, 0], [side, 0], [side, side], [0, side]], float)
    corners = (corners - 0.5 - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T + 0.5
    cv2.polylines(picture, [np.int32(corners * scale)], True, (255, 255, 255), 1)
    if not finding.found:
        picture[:3], picture[-3:], picture[:, :3], picture[:, -3:] = (np.uint8([255, 0, 0]),) * 4
    tile = np.full((TILE, TILE, 3), 255, np.uint8)
    tile[: shape[1], : shape[0]] = picture
    return tile


def tile_of(pixels: np.ndarray, spec: PreprocessSpec, name: str) -> np.ndarray:
    """Stack the outlined picture, the crop and the line of measurements."""
    finding = find_cell(pixels)
    crop = canonical_crop(pixels, finding, spec).pixels
    crop = cv2.resize(crop, (TILE, TILE), interpolation=cv2.INTER_AREA)
    text = np.full((30, TILE, 3), 255, np.uint8)
    said = finding.reason
    if finding.found:
        scale = finding.pixels_per_micrometre
        said = (
            f"{finding.nucleus_diameter / scale:.1f} {finding.cell_diameter / scale:.1f} "
            f"{scale:.1f} r{finding.red_cells} c{finding.confidence:.1f}"
        )
    for line, words in enumerate((said, name[-24:])):
        where = (2, 12 + 14 * line)
        cv2.putText(text, words, where, cv2.FONT_HERSHEY_SIMPLEX, 0.34, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([outlined(pixels, finding, spec), crop, text])


def sheet_of(tiles: list[np.ndarray]) -> np.ndarray:
    """Lay tiles out in rows."""
    while len(tiles) % COLUMNS:
        tiles.append(np.full_like(tiles[0], 255))
    rows = [np.hstack(tiles[at : at + COLUMNS]) for at in range(0, len(tiles), COLUMNS)]
    return np.vstack(rows)


def main() -> None:
    """Write one PNG for each folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--each", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=float, default=20.0, help="Micrometres across a crop.")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    spec = PreprocessSpec((160, 160), view="cell", width=arguments.width)
    rng = np.random.default_rng(arguments.seed)
    if arguments.folder is None:
        for name in CLASSES:
            tiles = []
            for index in range(arguments.each):
                style = draw_slide_style(np.random.default_rng([arguments.seed, index]))
                cell = draw_cell(name, np.random.default_rng([arguments.seed, index, 1]), style)
                tiles.append(tile_of(cell.pixels, spec, f"drawn {index}"))
            (arguments.out / f"drawn-{name}.png").write_bytes(encode_png(sheet_of(tiles)))
        return
    folders = [arguments.folder, *sorted(f for f in arguments.folder.rglob("*") if f.is_dir())]
    for folder in folders:
        files = sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            continue
        chosen = sorted(rng.permutation(len(files))[: arguments.each])
        tiles = [tile_of(read_image(files[i]).pixels, spec, files[i].name) for i in chosen]
        path = arguments.out / f"{arguments.folder.name}-{folder.name}.png"
        path.write_bytes(encode_png(sheet_of(tiles)))
        print(path)


if __name__ == "__main__":
    main()
