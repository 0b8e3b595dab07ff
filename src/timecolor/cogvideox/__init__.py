"""CogVideoX as a denoiser: the published TimeColor system, through diffusers' own seams.

The only package that imports diffusers.
"""

from timecolor.cogvideox.codec import CogVideoXCodec
from timecolor.cogvideox.files import Source
from timecolor.cogvideox.memory import LADDER
from timecolor.cogvideox.model import CogVideoXModel, load_model
from timecolor.cogvideox.network import CogVideoX, CogVideoXCache, Plan, Prompted, fitted_positions
from timecolor.cogvideox.prompts import Prompts
from timecolor.cogvideox.solver import Solver

__all__ = [
    "LADDER",
    "CogVideoX",
    "CogVideoXCache",
    "CogVideoXCodec",
    "CogVideoXModel",
    "Plan",
    "Prompted",
    "Prompts",
    "Solver",
    "Source",
    "fitted_positions",
    "load_model",
]
