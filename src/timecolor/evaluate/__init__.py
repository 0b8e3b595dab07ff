"""How good a result is: metrics, baselines and contact sheets."""

from timecolor.evaluate.baselines import copy_baseline
from timecolor.evaluate.metrics import ciede2000, delta_e, leak_rate, painted_mask, psnr, share_within, ssim, to_lab
from timecolor.evaluate.sheet import contact_sheet

__all__ = [
    "ciede2000",
    "contact_sheet",
    "copy_baseline",
    "delta_e",
    "leak_rate",
    "painted_mask",
    "psnr",
    "share_within",
    "ssim",
    "to_lab",
]
