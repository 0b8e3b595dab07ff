import re
from pathlib import Path

import numpy as np

from timecolor.world import HELD_OUT_SEED, World

README = (Path(__file__).parents[1] / "README.md").read_text()


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


def test_files_it_names_exist():
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (root / target).exists(), target
