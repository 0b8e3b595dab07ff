import re
from pathlib import Path

import numpy as np

from timecolor.world import HELD_OUT_SEED, World

ROOT = Path(__file__).parents[1]
README_PATH = ROOT / "README.md"
README = README_PATH.read_text()


def test_the_python_snippet_runs():
    shot, _ = World(HELD_OUT_SEED, 64, 96, frames=2).shot(3000).to_shot("start frame")
    names = {"sketch": np.asarray(shot.sketch[0:2]), "first_frame": shot.references[0].image}
    for snippet in re.findall(r"```python\n(.*?)```", README, re.S):
        exec(snippet, names)
    assert names["coloured"].shape == (2, 64, 96, 3)


def test_every_command_in_it_exists():
    from timecolor.cli import app

    commands = set(re.findall(r"^timecolor (\w+)", README, re.M))
    assert commands
    assert commands <= {name for name in app if not name.startswith("-")}
    options = {o for line in re.findall(r"^timecolor .*$", README, re.M) for o in re.findall(r" (--[a-z-]+)", line)}
    assert options <= {"--base", "--model", "--reference", "--format", "--lines", "--height", "--width", "--frames", "--preset"}


def test_files_that_pages_name_exist():
    named = []
    for page in (README_PATH, *(ROOT / "docs").glob("*.md"), ROOT / "src/timecolor/weights/README.md"):
        named += [page.parent / target for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text())]
    assert len(named) > 10
    assert [path for path in named if not path.exists()] == []
