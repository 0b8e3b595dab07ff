"""Imports go one way, and cost only what they must."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "timecolor"

# Module or package -> what of timecolor it may import. A line names only what stands above it, so nothing is ever imported back.
MAY_IMPORT = {
    "shapes": "",
    "geometry": "",
    "shot": "",
    # the sequence
    "layout": "shapes geometry",
    "rope": "shapes layout",
    "correspondence": "shapes geometry layout",
    "attention": "shapes geometry layout correspondence",
    "choice": "shapes",
    # the model
    "matcher": "shapes",
    "denoiser": "shapes geometry layout correspondence attention choice matcher",
    "toon": "shapes geometry layout rope correspondence attention denoiser",
    "diffusion": "shapes",
    "cogvideox": "shapes geometry layout rope correspondence attention denoiser",
    "weights": "rope toon matcher",
    "sampling": "shapes denoiser",
    # pictures
    "sketch": "shapes shot",
    "propagation": "shapes",
    "pairing": "shapes shot sketch propagation",
    "codec": "shapes geometry denoiser shot sketch propagation pairing",
    "finish": "shapes shot sketch propagation pairing choice",
    "trust": "shapes propagation choice finish",
    "alignment": "shapes matcher propagation",
    "matching": "shapes geometry denoiser matcher sketch propagation finish alignment",
    # the façade
    "models": "shapes geometry choice denoiser toon matcher diffusion weights cogvideox codec propagation",
    "carrying": "geometry denoiser shot propagation pairing codec finish matching trust",
    "finishing": "",
    "colorize": "shapes geometry layout correspondence attention denoiser models sampling shot sketch codec finish propagation"
    " pairing matching carrying finishing",
    # files
    "media": "shot",
    "shotfiles": "shot media",
    "__init__": "shot shotfiles colorize",
    # made from nothing but the above, and knowing no files
    "world": "shapes shot",
    "train": "shapes geometry layout correspondence denoiser toon diffusion cogvideox weights"
    " matcher matching shot sketch codec propagation choice finish trust models colorize media shotfiles world",
    "evaluate": "shapes geometry layout rope correspondence denoiser toon models weights shot sketch codec finish propagation"
    " pairing choice matcher colorize media shotfiles world train",
    # what people start
    "demo": "shot colorize media shotfiles world evaluate",
    "cli": "__init__ geometry shot sketch colorize media shotfiles train evaluate demo",
    "__main__": "cli",
}


def module_of(path: Path) -> str:
    """`toon` of toon.py, `world` of world/scene.py: a package is one unit."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and unit of each import of timecolor's own, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ["timecolor", *path.relative_to(SOURCE).parent.parts][: -node.level + 1 or None] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        for name in names:
            top, _, rest = name.partition(".")
            if top == "timecolor":
                unit = rest.split(".")[0]
                yield node.lineno, unit if unit in MAY_IMPORT else "__init__"


def test_the_table_goes_one_way():
    above: set[str] = set()
    for unit, allowed in MAY_IMPORT.items():
        assert set(allowed.split()) <= above, f"{unit} names {set(allowed.split()) - above}, which stands below it"
        above.add(unit)


def test_the_table_has_every_module():
    assert {module_of(path) for path in SOURCE.rglob("*.py")} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path):
    unit = module_of(path)
    allowed = {unit, *MAY_IMPORT[unit].split()}
    wrong = [f"{path.name}:{line} imports {other}" for line, other in imports(path) if other not in allowed]
    assert not wrong, f"{unit} may import {MAY_IMPORT[unit] or 'nothing'}; {'; '.join(wrong)}"


def python(program: str, *arguments: str) -> str:
    """What a fresh interpreter prints."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_timecolor_is_free():
    loaded = python("import sys, timecolor; dir(timecolor); print(*{name.split('.')[0] for name in sys.modules})").split()
    assert "timecolor" in loaded
    assert not {"torch", "numpy", "cv2", "av", "pydantic", "cyclopts", "rich"} & set(loaded)


def test_the_public_names_need_neither_diffusers_nor_a_web_framework():
    program = (
        "import sys, timecolor\n"
        "assert all(getattr(timecolor, name) for name in timecolor.__all__)\n"
        "assert set(timecolor.__all__) <= set(dir(timecolor))\n"
        "assert timecolor.load == timecolor.Colorizer.load\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    heavy = {"diffusers", "transformers", "peft", "accelerate", "fastapi", "starlette", "uvicorn", "flask", "aiohttp", "gradio"}
    assert not (heavy | {"cyclopts", "rich"}) & set(python(program).split())


def test_an_unknown_public_name_is_an_attribute_error():
    import timecolor

    with pytest.raises(AttributeError, match="no attribute 'Colouriser'"):
        _ = timecolor.Colouriser  # pyright: ignore[reportAttributeAccessIssue]


def test_training_needs_little():
    """Machines with a GPU may have torch, numpy, OpenCV, Pillow, einops and safetensors, and no more."""
    hidden = [
        "av",
        "pydantic",
        "cyclopts",
        "rich",
        "jaxtyping",
        "beartype",
        "skimage",
        "diffusers",
        "transformers",
        "peft",
        "tqdm",
    ]
    program = (
        "import runpy, sys; sys.modules.update(dict.fromkeys(sys.argv[1:]))\n"
        "import timecolor.train.loop\n"
        "sys.argv = ['timecolor.train', '--help']\n"
        "runpy.run_module('timecolor.train', run_name='__main__')"
    )
    assert "--preset" in python(program, *hidden)
