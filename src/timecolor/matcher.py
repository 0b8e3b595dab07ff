"""A small network that knows the parts of a drawing again in a reference: descriptions of line art, alike for like parts.

Not in the TimeColor paper. Paint bucket colorization learns to match closed segments (BasicPBC, Dai et al. 2024); this describes
every second pixel, so that nothing need be closed, and is asked through a softmax over a reference's places, as the embedded
model's pointer is.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timecolor.shapes import Float

STRIDE = 2  # pixels to a described place
# Pixels around an area that are looked at too; a multiple of the stride. With fewer, maps at stride 16 may be one column wide,
# and the gradient of what follows is wrong in bfloat16 on a CPU (docs/method.md).
AROUND = 16
INPUTS = 2  # lines, and the area that they are of


@dataclass(frozen=True, slots=True)
class MatcherConfig:
    """widths: channels at strides 2, 4, 8 ...; describe: numbers to a place."""

    widths: tuple[int, ...] = (32, 64, 128, 192, 256)
    describe: int = 64


class Matcher(nn.Module):
    """A U-Net over line art. The same network reads drawing and reference.

    scale: of the cosine between two descriptions, in the softmax. nothing: the description of "in no reference".
    """

    def __init__(self, config: MatcherConfig = MatcherConfig()) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = _Conv(INPUTS * STRIDE**2, widths[0])
        self.down = nn.ModuleList(nn.Sequential(_Conv(a, b, 2), _Residual(b)) for a, b in pairwise(widths))
        ups = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in ups)
        self.join = nn.ModuleList(_Conv(b, b) for _, b in ups)
        self.head = nn.Conv2d(widths[0], config.describe, 1)
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.nothing = nn.Parameter(torch.randn(config.describe))
        self.nothing_bias = nn.Parameter(torch.zeros(()))

    def forward(self, drawings: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b d y x"]:
        """Descriptions at every `STRIDE`-th pixel. drawings: darkness of lines and the area, in [0, 1]."""
        h, w = drawings.shape[-2:]
        padded = F.pad(drawings, (0, w % STRIDE, 0, h % STRIDE))
        x = self.stem(F.pixel_unshuffle(padded, STRIDE))
        seen = []
        for down in self.down:
            seen.append(x)
            x = down(x)
        for up, join in zip(self.up, self.join, strict=True):
            beside = seen.pop()
            x = join(beside + F.interpolate(up(x), size=beside.shape[-2:], mode="bilinear"))
        return self.head(x)

    def of_area(self, picture: Float[Tensor, "2 h w"]) -> Float[Tensor, "d y x"]:
        """Descriptions of one picture, worked out where its area lies; 0 elsewhere."""
        h, w = picture.shape[1:]
        found = picture.new_zeros(self.config.describe, -(-h // STRIDE), -(-w // STRIDE))
        at = picture[1].nonzero()
        if len(at):
            low = (at.amin(0) - AROUND).clamp(min=0) // STRIDE * STRIDE
            y, x = low.tolist()
            y1, x1 = (at.amax(0) + 1 + AROUND).tolist()
            here = self(picture[None, :, y:y1, x:x1])[0]
            rows, columns = here.shape[1:]
            found = F.pad(
                here, (x // STRIDE, found.shape[2] - x // STRIDE - columns, y // STRIDE, found.shape[1] - y // STRIDE - rows)
            )
        return found

    def likeness(self, queries: Float[Tensor, "b q d"], keys: Float[Tensor, "b k d"]) -> tuple[Tensor, Tensor]:
        """How like each place is to each of a reference's (b q k), and to none of them (b q), against the likest, which has 1.

        A reference's mean over its places is to be compared with "none", so that it does not matter how densely it is described.
        """
        with torch.autocast(queries.device.type, enabled=False):
            queries, keys = F.normalize(queries.float(), dim=2), F.normalize(keys.float(), dim=2)
            scale, nothing = self.scale.float().exp(), F.normalize(self.nothing.float(), dim=0)
            fits, none = scale * (queries @ keys.mT), scale * (queries @ nothing) + self.nothing_bias.float()
            most = torch.maximum(fits.amax(2), none).detach()
            return (fits - most[..., None]).exp(), (none - most).exp()


class _Conv(nn.Module):
    """3 by 3; the weights are one matrix, as Muon wants them."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.randn(outputs, inputs * 9) * (inputs * 9) ** -0.5)
        self.norm = nn.GroupNorm(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.unflatten(1, (-1, 3, 3))
        return F.silu(self.norm(F.conv2d(x, weight, None, self.stride, 1)))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _Conv(width, width), _Conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))
