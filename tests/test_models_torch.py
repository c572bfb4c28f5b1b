"""The networks equal PyTorch's: logits, gradients and batch statistics, at odd sizes."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from resflax import DenseNet, ResNet
from resflax.declarations.densenet import IMAGENET_DENSENETS
from resflax.declarations.resnet import IMAGENET_RESNETS
from resflax.models import build
from resflax.models.layers import Layers
from resflax.models.summary import summarize
from resflax.models.units import linen_class
from resflax.models.zoo import named
from resflax.shortcuts import ProjectionPooled

torch = pytest.importorskip("torch")
reference = pytest.importorskip("torch_reference")

CLASSES = 7


@pytest.fixture(autouse=True)
def _small_imagenet_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds small depths of the imagenet layout, with two stages each, to those of the papers."""
    monkeypatch.setitem(IMAGENET_RESNETS, 8, ("basic", (1, 2)))
    monkeypatch.setitem(IMAGENET_RESNETS, 11, ("bottleneck", (1, 2)))
    monkeypatch.setitem(IMAGENET_DENSENETS, 12, (2, 3))


# Rules from our paths to PyTorch's names, applied in turn.
TORCHVISION_RESNET = [
    (r"stage(\d+)_unit(\d+)", lambda m: f"layer{m[1]}.{int(m[2]) - 1}"),
    (r"shortcut/conv", "downsample.0"),
    (r"shortcut/norm", "downsample.1"),
    (r"stem_conv", "conv1"),
    (r"stem_norm", "bn1"),
    (r"norm(\d)", r"bn\1"),
    (r"head", "fc"),
]
AKAMASTER = [*TORCHVISION_RESNET, (r"fc", "linear")]
TIMM_RESNETV2 = [
    (r"stem_conv", "stem.conv"),
    (r"stem_norm", "stage1_unit1/norm1"),  # the stem pools before it: BN of the first unit
    (r"stage(\d+)_unit(\d+)", lambda m: f"stages.{int(m[1]) - 1}.blocks.{int(m[2]) - 1}"),
    (r"shortcut/conv", "downsample.conv"),
    (r"final_norm", "norm"),
    (r"head", "head.fc"),
]
WIDE_RESNET = [
    (r"stem_conv", "stem"),
    (r"stem_norm", "stage1_unit1/norm1"),  # the first unit begins with it
    (r"stage(\d+)_unit(\d+)", lambda m: f"group{m[1]}.{int(m[2]) - 1}"),
    (r"shortcut/conv", "projection"),
    (r"final_norm", "bn"),
    (r"norm(\d)", r"bn\1"),
    (r"head", "fc"),
]
TORCHVISION_DENSENET = [
    (r"stem_(conv|norm)", r"features.\g<1>0"),
    (r"block(\d+)_layer(\d+)", r"features.denseblock\1.denselayer\2"),
    (r"transition(\d+)", r"features.transition\1"),
    (r"final_norm", "features.norm5"),
    (r"head", "classifier"),
]
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def torch_name(path: str, rules: Any) -> str:
    _, *layers, leaf = path.split("/")
    name = "/".join(layers)
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return f"{name.replace('/', '.')}.{LEAVES[leaf]}"


def from_torch(tensor: Any, like: Any) -> np.ndarray:
    """A tensor in our layout: OIHW to HWIO, (out, in) to (in, out), 1x1 classifiers to dense."""
    array = tensor.detach().numpy()
    if like.ndim == 2:
        return array.reshape(array.shape[:2]).T
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def randomize(module: Any) -> None:
    """Gives every parameter and statistic its own values; signs of scales are mixed."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        drawn = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            drawn = drawn.abs() + 0.5
        elif tensor.ndim == 1 and name.endswith("weight"):
            drawn = drawn * 0.3 + torch.where(drawn > -1, 1.0, -1.0)
        elif tensor.ndim > 1:
            drawn = drawn * (1 / tensor[0].numel()) ** 0.5
        else:
            drawn = drawn * 0.2
        tensor.copy_(drawn)


def assert_close(ours: Any, theirs: np.ndarray, name: str) -> None:
    """Compares two tensors to 1e-4 of the largest entry."""
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape, name
    scale = np.abs(theirs).max()
    assert scale > 0, name
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * scale, err_msg=name)


def imagenet(depth: int, **fields: Any) -> ResNet:
    return ResNet(depth, layout="imagenet", **fields)


# For each case: a function that makes their network, one that declares ours (called after the small
# depths were added), the rules for names, and the side of the images.
CASES: dict[str, tuple[Callable[[], Any], Callable[[], Any], Any, int]] = {
    "resnet_basic": (
        lambda: reference.ResNet(reference.BasicBlock, (1, 2), CLASSES),
        lambda: imagenet(8),
        TORCHVISION_RESNET,
        33,
    ),
    "resnet_bottleneck": (
        lambda: reference.ResNet(reference.Bottleneck, (1, 2), CLASSES),
        lambda: imagenet(11),
        TORCHVISION_RESNET,
        33,
    ),
    "resnext": (
        lambda: reference.ResNet(reference.Bottleneck, (1, 2), CLASSES, 8, width_per_group=12),
        lambda: imagenet(11, groups=8, bottleneck_width=96),
        TORCHVISION_RESNET,
        33,
    ),
    "resnetv2": (
        lambda: reference.ResNetV2((1, 2), CLASSES),
        lambda: imagenet(11, order="full_pre", pool_first=True),
        TIMM_RESNETV2,
        33,
    ),
    "densenet": (
        lambda: reference.DenseNet(8, (2, 3), 16, CLASSES),
        lambda: DenseNet(12, 8, layout="imagenet"),
        TORCHVISION_DENSENET,
        33,
    ),
    "cifar_resnet": (
        lambda: reference.CifarResNet(2, CLASSES),
        lambda: ResNet(14, zero_pad_side="both"),
        AKAMASTER,
        25,
    ),
    "wide_resnet": (
        lambda: reference.WideResNet(16, 3, CLASSES),
        lambda: ResNet(16, widening=3, order="full_pre"),
        WIDE_RESNET,
        17,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_gradients_and_statistics_are_pytorchs(case):
    # Rounding may take an activation across a ReLU's kink, or a maximum to another place. Gradients
    # then differ, but not for every draw of pictures.
    for seed in range(4):
        try:
            compare(case, seed)
            return
        except AssertionError:
            if seed == 3:
                raise


def compare(case: str, seed: int) -> None:
    theirs, ours, rules, side = CASES[case]
    net, module = theirs(), build(ours(), CLASSES)
    randomize(net)
    random = np.random.default_rng(seed)
    images = random.normal(size=(6, side, side, 3)).astype(np.float32)
    labels = random.integers(CLASSES, size=6)
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), jnp.asarray(images), train=False)
    )
    like = flatten_dict(shapes, sep="/")
    names = {path: torch_name(path, rules) for path in like}
    state = net.state_dict()
    assert sorted(names.values()) == sorted(n for n in state if "num_batches" not in n)
    by_path = {path: from_torch(state[name], like[path]).copy() for path, name in names.items()}
    variables: Any = unflatten_dict(by_path, sep="/")

    batch = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    net.eval()
    evaluated = net(batch).detach().numpy()
    net.train()
    trained = net(batch)
    torch.nn.functional.cross_entropy(trained, torch.from_numpy(labels)).backward()

    def loss_of(params: Any) -> Any:
        variables_now = {"params": params, "batch_stats": variables["batch_stats"]}
        logits, updates = module.apply(variables_now, images, train=True, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), (logits, updates)

    @jax.jit
    def step(variables: Any) -> Any:
        gradients, (logits, updates) = jax.grad(loss_of, has_aux=True)(variables["params"])
        results = {"params": gradients, "batch_stats": updates["batch_stats"]}
        return module.apply(variables, images, train=False), logits, results

    ours_evaluated, ours_trained, results = step(variables)
    assert_close(ours_evaluated, evaluated, "logits in evaluation")
    assert_close(ours_trained, trained.detach().numpy(), "logits in training")
    parameters, buffers = dict(net.named_parameters()), dict(net.named_buffers())
    for path, value in flatten_dict(results, sep="/").items():
        name = names[path]
        expected = parameters[name].grad if path.startswith("params/") else buffers[name]
        assert_close(value, from_torch(expected, like[path]), path)


@pytest.mark.parametrize(("depth", "k"), [(40, 4), (16, 8), (28, 10)])
def test_wide_networks_have_pytorchs_parameters(depth, k):
    with torch.device("meta"):
        theirs = reference.WideResNet(depth, k)
    counted = sum(parameter.numel() for parameter in theirs.parameters())
    assert summarize(named(f"wrn_{depth}_{k}"), 10, (32, 32, 3)).params == counted


@pytest.mark.parametrize("side", [8, 9])
def test_a_pooled_projection_is_timms_average_downsampling(side):
    # timm: AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), 1x1 convolution, BN.
    theirs = torch.nn.Sequential(
        torch.nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
        torch.nn.Conv2d(4, 6, 1, bias=False),
        torch.nn.BatchNorm2d(6),
    ).eval()
    randomize(theirs)
    x = np.random.default_rng(0).normal(size=(2, side, side, 4)).astype(np.float32)
    expected = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    expected = expected.detach().numpy().transpose(0, 2, 3, 1)

    projection: Any = linen_class(ProjectionPooled)
    module = projection(layers=Layers(), stride=2, normalized=True)
    norm = theirs[2]
    variables = {
        "params": {
            "conv": {"kernel": theirs[1].weight.detach().numpy().transpose(2, 3, 1, 0)},
            "norm": {"scale": norm.weight.detach().numpy(), "bias": norm.bias.detach().numpy()},
        },
        "batch_stats": {
            "norm": {"mean": norm.running_mean.numpy(), "var": norm.running_var.numpy()}
        },
    }
    projected = module.apply(variables, x, jnp.zeros_like(expected), train=False)
    assert_close(projected, expected, "projection")
