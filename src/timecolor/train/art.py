"""Drawings by other hands for the matcher to learn from: clip art and cartoon heads under free licences, set into scenes.

`python -m timecolor.train.art --out data/art` renders them once; nothing of it is needed where training runs but the folder.
"""

import argparse
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from timecolor.finish.ink import nearest
from timecolor.shapes import UInt8
from timecolor.shot import Reference

HEIGHT = 400  # pixels of a stored picture, at most; so is its width
VARIANTS = 3  # pictures of a head, each with another expression
# What may be trained on: as clip art names it in its metadata, and DiceBear in its styles.
PUBLIC_DOMAIN = ("http://web.resource.org/cc/PublicDomain", "http://creativecommons.org/licenses/publicdomain")
FREE = ("CC0 1.0", "CC BY 4.0")
STYLES = ("adventurer", "big-ears", "big-smile", "critters", "micah", "miniavs", "open-peeps", "personas", "sprouts", "toon-head")
EXPRESSION = ("eyes", "eyebrows", "mouth", "face")  # components that change from picture to picture
# Of Open Clip Art, the folders where things are drawn; the others hold icons, flags, signs and patterns.
FOLDERS = (
    "animals",
    "buildings",
    "containers",
    "decorations",
    "food",
    "people",
    "plants",
    "recreation",
    "tools",
    "transportation",
)
# A colour counts from so many pixels on, and is a line where so little of it is left once its rim is gone.
LEAST, THIN = 40, 0.04
FEWEST, MOST = 3, 40  # parts of a picture
FLAT, COVERED = 0.8, 0.1  # shares of a picture that flat colours have at least, and of its box that it fills
SLOTS = 126  # parts of a scene


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A flat picture. index: uint8 (h, w), 0 = nothing, 1 to `parts` = parts, then lines. colours: uint8 (n, 3)."""

    index: UInt8[np.ndarray, "h w"]
    colours: UInt8[np.ndarray, "n 3"]
    parts: int

    @staticmethod
    def of(image: UInt8[np.ndarray, "h w 4"]) -> "Piece | None":
        """A picture with alpha, told apart by its flat colours; None where it is painted, empty or has too few or many."""
        inside = image[..., 3] >= 128
        code = image[..., :3].astype(np.int64) @ np.array([65536, 256, 1])
        flat, counts = np.unique(code[inside], return_counts=True)
        flat = flat[counts >= LEAST]
        known = inside & np.isin(code, flat)
        if inside.mean() < COVERED or known.sum() < FLAT * inside.sum():
            return None
        own = np.where(known, np.searchsorted(flat, code) + 1, 0).astype(np.uint16)
        left = [int(cv2.erode((own == i + 1).astype(np.uint8), np.ones((5, 5), np.uint8)).sum()) for i in range(len(flat))]
        sizes = np.bincount(own[known], minlength=len(flat) + 1)[1:]
        thin = np.array(left) < THIN * sizes
        order = np.argsort(np.where(thin, 0, -sizes) + thin, kind="stable")
        parts = int((~thin).sum())
        if not FEWEST <= parts <= MOST or len(flat) > 250:
            return None
        rank = np.zeros(len(flat) + 1, np.uint8)
        rank[order + 1] = np.arange(1, len(flat) + 1)
        colours = np.stack([flat >> 16, flat >> 8 & 255, flat & 255], axis=1)[order].astype(np.uint8)
        index = (nearest(rank[own].astype(np.int32)) * inside).astype(np.uint8)
        rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return Piece(index[box], np.concatenate([np.full((1, 3), 255, np.uint8), colours]), parts)

    @staticmethod
    def load(path: Path) -> "Piece":
        """A stored one. Raises OSError and ValueError where it is none."""
        with Image.open(path) as image:
            if image.mode != "P" or "parts" not in image.info:
                raise ValueError(f"{path}: is no picture of `python -m timecolor.train.art`; make the folder anew")
            index, parts = np.array(image), int(image.info["parts"])
            colours = np.array(image.getpalette(), np.uint8).reshape(-1, 3)[: int(index.max()) + 1]
        return Piece(index, colours, parts)

    def save(self, path: Path) -> None:
        """As a PNG with a palette."""
        image = Image.fromarray(self.index)
        image.putpalette(self.colours.tobytes())
        about = PngInfo()
        about.add_text("parts", str(self.parts))
        image.save(path, pnginfo=about, optimize=True)


class Cast(NamedTuple):
    """Pieces on a canvas. colour: what is drawn. parts: palette indices as the world's, 0 = behind. labels: 0, then by piece."""

    colour: UInt8[np.ndarray, "h w 3"]
    parts: UInt8[np.ndarray, "h w"]
    labels: UInt8[np.ndarray, "h w"]


class Art:
    """A folder of pieces, by figure: the pictures of one figure share their parts' colours."""

    def __init__(self, folder: Path) -> None:
        found: dict[str, list[Path]] = {}
        for path in sorted(folder.glob("*.png")):
            found.setdefault(path.name.split(".")[0], []).append(path)
        self._figures = list(found.values())
        if len(self._figures) < 2:
            raise ValueError(
                f"{folder}: holds {len(self._figures)} drawings; make it with `python -m timecolor.train.art --out {folder}`"
            )

    def __len__(self) -> int:
        return len(self._figures)

    def scene(self, rng: np.random.Generator, height: int, width: int, most: int) -> "Scene":
        """One to `most` figures, to be drawn at a size."""
        chosen = rng.choice(len(self), int(rng.integers(1, most + 1)), replace=False)
        figures = [[Piece.load(path) for path in self._figures[i]] for i in chosen]
        return Scene(figures, height, width, rng.integers(0, 256, 3).astype(np.uint8))


class Scene:
    """Figures of some pieces, by the same palette indices wherever they are drawn."""

    def __init__(self, figures: Sequence[Sequence[Piece]], height: int, width: int, behind: UInt8[np.ndarray, " 3"]) -> None:
        self.height, self.width, self.behind = height, width, behind
        self._figures, self._slots, free = figures, list[dict[bytes, int]](), 1
        for pieces in figures:
            slots: dict[bytes, int] = {}
            for colour in (c.tobytes() for piece in pieces for c in piece.colours[1 : piece.parts + 1]):
                if colour not in slots:
                    slots[colour] = min(free, SLOTS)
                    free += 1
            self._slots.append(slots)

    def __len__(self) -> int:
        return len(self._figures)

    def drawn(self, rng: np.random.Generator) -> Cast:
        """The figures somewhere on the canvas, each bent its own way; where they overlap, the later is in front."""
        colour = np.broadcast_to(self.behind, (self.height, self.width, 3)).copy()
        parts, labels = np.zeros((self.height, self.width), np.uint8), np.zeros((self.height, self.width), np.uint8)
        for k in range(len(self)):
            size = float(np.exp(rng.uniform(np.log(0.5), np.log(1.7 / len(self) ** 0.5))))
            x, y = rng.uniform(0.2, 0.8, 2)
            seen, own, there = self._bent(rng, k, size, (float(x), float(y)))
            colour[there], parts[there], labels[there] = seen[there], own[there], k + 1
        return Cast(colour, parts, labels)

    def figure(self, rng: np.random.Generator, k: int) -> tuple[Reference, UInt8[np.ndarray, "h w"]]:
        """Figure k alone (from 0), cut out, and its parts."""
        colour, parts, there = self._bent(rng, k, float(rng.uniform(0.6, 1.0)), (0.5, 0.5))
        return Reference(colour, np.where(there, np.uint8(255), np.uint8(0))), parts

    def _bent(
        self, rng: np.random.Generator, k: int, size: float, centre: tuple[float, float]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One of the pictures of figure k on the canvas: colours, parts, and where it is. size: of the canvas, about."""
        piece = self._figures[k][int(rng.integers(len(self._figures[k])))]
        h, w = piece.index.shape
        zoom = size * min(self.height / h, self.width / w)
        angle, aspect, shear = rng.normal(0, 0.15), np.exp(rng.normal(0, 0.12)), rng.normal(0, 0.08)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        back = np.linalg.inv(zoom * turn @ np.array([[aspect, shear], [0, 1 / aspect]]))
        y, x = np.mgrid[0 : self.height, 0 : self.width].astype(np.float32)
        x, y = x - centre[0] * self.width, y - centre[1] * self.height
        grid = rng.normal(0, rng.uniform(0, 0.05) * max(h, w), (*rng.integers(3, 7, 2), 2)).astype(np.float32)
        wave = cv2.resize(grid, (self.width, self.height), interpolation=cv2.INTER_CUBIC)
        at_x = back[0, 0] * x + back[0, 1] * y + w / 2 + wave[..., 0]
        at_y = back[1, 0] * x + back[1, 1] * y + h / 2 + wave[..., 1]
        x, y = at_x.astype(np.float32), at_y.astype(np.float32)
        found = cv2.remap(piece.index, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
        index = np.asarray(found, np.uint8)
        there = index > 0
        filled = nearest(np.where(index <= piece.parts, index, 0).astype(np.int32))
        slots = np.array([0, *(self._slots[k][c.tobytes()] for c in piece.colours[1 : piece.parts + 1])])
        parts = np.zeros(256, np.uint8)
        parts[: len(slots)] = 2 * slots
        return piece.colours[index], parts[filled] * there, there


# ---------------------------------------------------------------- rendered once


def collect(out: Path, clip_art: Path | None, heads: int, say: Callable[[str], None]) -> int:
    """Render clip art (a folder of SVG, as Debian's openclipart-svg has it) and `heads` heads a style; how many figures.

    Raises ModuleNotFoundError without the extra `art`, and FileNotFoundError for a folder that is not there.
    """
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    for source, found in (("clip art", _clip_art(clip_art) if clip_art else []), ("heads", _heads(heads))):
        kept = 0
        for name, drawings in found:
            pieces = [piece for piece in map(Piece.of, drawings) if piece is not None]
            for variant, piece in enumerate(pieces):
                piece.save(out / f"{name}.{variant}.png")
            kept += bool(pieces)
        say(f"{source}: {kept} figures")
        count += kept
    return count


def _clip_art(folder: Path) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Drawings whose own metadata dedicates them to the public domain."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; install Debian's openclipart-svg, or leave --clip-art out")
    for path in sorted(folder.rglob("*.svg")):
        if path.relative_to(folder).parts[0] not in FOLDERS:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        licence = re.search(r'<(?:cc:)?license\s+rdf:resource="([^"]*)"', text)
        if licence is None or licence.group(1) not in PUBLIC_DOMAIN:
            continue
        image = _rendered(text)
        if image is not None:
            yield "clip-" + "-".join(path.relative_to(folder).with_suffix("").parts).replace(".", "_"), [image]


def _heads(count: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Heads of each style, with `VARIANTS` expressions. Raises ValueError where a style's licence is not free."""
    if not count:
        return
    import dicebear_styles
    from dicebear import Avatar, OptionsDescriptor, Style

    for name in STYLES:
        style = Style.from_json((Path(next(iter(dicebear_styles.__path__))) / f"{name}.json").read_text(encoding="utf-8"))
        licence = style.meta().license().name()
        if licence not in FREE:
            raise ValueError(f"DiceBear's {name} is under {licence!r}, not {' or '.join(FREE)}; take it out of STYLES")
        known = OptionsDescriptor(style).to_json()
        for seed in range(count):
            rng = np.random.default_rng((seed, 17))
            settled = Avatar(style, {"seed": str(seed), "backgroundColor": []}).to_json()["options"]
            base = {name: value for name, value in settled.items() if name in known}
            drawings = []
            for _ in range(VARIANTS):
                changed = {
                    f"{part}Variant": str(rng.choice(known[f"{part}Variant"]["values"]))
                    for part in EXPRESSION
                    if f"{part}Variant" in base and drawings
                }
                image = _rendered(Avatar(style, base | changed).to_string())
                drawings += [] if image is None else [image]
            yield f"{name}-{seed}", drawings


def _rendered(svg: str) -> np.ndarray | None:
    """uint8 (h, w, 4) at about `HEIGHT`, or None where it cannot be read."""
    import resvg_py

    try:
        data = bytes(resvg_py.svg_to_bytes(svg_string=svg, height=HEIGHT))
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGBA")) if image.width <= 3 * HEIGHT else None
    except (ValueError, UnidentifiedImageError):
        return None


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="python -m timecolor.train.art")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clip-art", type=Path, help="folder of SVG, such as /usr/share/openclipart/svg")
    parser.add_argument("--heads", type=int, default=150, help="of each style")
    given = parser.parse_args()
    try:
        collect(given.out, given.clip_art, given.heads, say=lambda line: print(line, flush=True))  # noqa: T201 (its output)
    except ModuleNotFoundError as error:
        sys.exit(f"timecolor.train.art: needs {error.name}; install it with: pip install 'timecolor[art]'")
    except (ValueError, OSError) as error:
        sys.exit(f"timecolor.train.art: {error}")


if __name__ == "__main__":
    main()
