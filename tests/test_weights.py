"""Weights of other libraries.

Our networks compute what those libraries' networks compute with them, and weights that go out and
come in again are the same to the bit.
"""

from types import MethodType
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax import DenseNet, ResNet, UsageError
from resflax.declarations.models import Model
from resflax.models import build
from resflax.weights.convert import from_torch, head_features, names_of, to_torch

torch = pytest.importorskip("torch")
from tests import torch_reference as reference  # noqa: E402

CLASSES = 7


def residual(units, block=reference.Bottleneck, **options):
    return lambda: reference.ResNet(block, units, CLASSES, **options)


def dense(growth_rate, depths):
    return lambda: reference.DenseNet(growth_rate, depths, 2 * growth_rate, CLASSES)


def cifar_dense():
    """torchvision's DenseNet with the stem of CIFAR networks."""
    net = reference.DenseNet(6, (2, 2, 2), 12, CLASSES)
    net.features.conv0 = torch.nn.Conv2d(3, 12, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        setattr(net.features, name, torch.nn.Identity())
    return net


def cifar_option_b() -> Any:
    """pytorch_resnet_cifar10 with its option B."""
    net: Any = reference.CifarResNet(2, CLASSES)

    def forward(block, x):
        branch = torch.relu(block.bn1(block.conv1(x)))
        return torch.relu(block.bn2(block.conv2(branch)) + block.shortcut(x))

    for stage in (net.layer1, net.layer2, net.layer3):
        for block in stage:
            inputs, outputs = block.conv1.in_channels, block.conv1.out_channels
            projection = (
                torch.nn.Conv2d(inputs, outputs, 1, 2, bias=False),
                torch.nn.BatchNorm2d(outputs),
            )
            block.shortcut = torch.nn.Sequential(*projection if inputs != outputs else ())
            block.forward = MethodType(forward, block)
    return net


BASIC = reference.BasicBlock
FAMILIES: dict[str, tuple[Model, Any, tuple[int, int]]] = {
    "cifar": (ResNet(14), lambda: reference.CifarResNet(2, CLASSES), (33, 31)),
    "cifar-both": (
        ResNet(14, zero_pad_side="both"),
        lambda: reference.CifarResNet(2, CLASSES),
        (33, 31),
    ),
    "cifar-b": (ResNet(14, shortcut="projection"), cifar_option_b, (33, 31)),
    "densenet-cifar": (DenseNet(16, 6), cifar_dense, (33, 31)),
    "resnet18": (ResNet(18, "imagenet"), residual((2, 2, 2, 2), BASIC), (65, 67)),
    "resnet50": (ResNet(50, "imagenet"), residual((3, 4, 6, 3)), (65, 65)),
    "resnext50": (
        ResNet(50, "imagenet", groups=32, bottleneck_width=128),
        residual((3, 4, 6, 3), groups=32, width_per_group=4),
        (65, 65),
    ),
    "resnetv2_50": (
        ResNet(50, "imagenet", order="full_pre", pool_first=True),
        lambda: reference.ResNetV2((3, 4, 6, 3), CLASSES),
        (65, 65),
    ),
    "densenet121": (DenseNet(121, 32, "imagenet"), dense(32, (6, 12, 24, 16)), (65, 65)),
}
DEEP: dict[str, tuple[Model, Any, tuple[int, int]]] = {
    "resnet34": (ResNet(34, "imagenet"), residual((3, 4, 6, 3), BASIC), (65, 65)),
    "resnet101": (ResNet(101, "imagenet"), residual((3, 4, 23, 3)), (65, 65)),
    "resnet152": (ResNet(152, "imagenet"), residual((3, 8, 36, 3)), (65, 65)),
    "wide_resnet50_2": (
        ResNet(50, "imagenet", bottleneck_width=128),
        residual((3, 4, 6, 3), width_per_group=128),
        (65, 65),
    ),
    "densenet161": (DenseNet(161, 48, "imagenet"), dense(48, (6, 12, 36, 24)), (65, 65)),
    "densenet169": (DenseNet(169, 32, "imagenet"), dense(32, (6, 12, 32, 32)), (65, 65)),
    "densenet201": (DenseNet(201, 32, "imagenet"), dense(32, (6, 12, 48, 32)), (65, 65)),
}


def randomized(net, seed=0):
    """Gives every tensor random values of a scale at which activations do not vanish."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.ndim == 1:
            centre = 1 if name.endswith("weight") else 0
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3 + centre)
        elif tensor.ndim > 1:
            scale = (2 / tensor[0].numel()) ** 0.5
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
    return net.eval()


def arrays(net):
    return {name: tensor.numpy() for name, tensor in net.state_dict().items()}


def logits(net, images):
    with torch.no_grad():
        return net(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()


def assert_same(arrays, expected):
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert arrays[name].dtype == array.dtype, name
        np.testing.assert_array_equal(arrays[name], array, name, strict=True)


@pytest.mark.parametrize(
    "name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in DEEP)]
)
def test_logits_agree_with_the_other_library(name):
    config, make, size = (FAMILIES | DEEP)[name]
    net = randomized(make())
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    expected = logits(net, images)

    variables = from_torch(config, arrays(net))
    module = build(config, CLASSES)
    ours = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, images)
    assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 1e-2 * np.abs(expected).max()

    state = to_torch(config, variables)
    assert_same(state, arrays(net))
    reloaded = make().eval()
    reloaded.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=True)
    np.testing.assert_array_equal(logits(reloaded, images), expected)


def shapes(config, classes, channels):
    side = 64 if config.layout == "imagenet" else 32
    module = build(config, classes)
    image = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)


def random_variables(config, classes, channels, seed):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: np.abs(random.normal(size=leaf.shape)).astype(np.float32),
        shapes(config, classes, channels),
    )


configs = st.one_of(
    st.builds(
        ResNet,
        depth=st.sampled_from((8, 14, 20)),
        shortcut=st.just("zero_pad"),
        zero_pad_side=st.sampled_from(("end", "both")),
    ),
    st.builds(ResNet, depth=st.sampled_from((8, 14)), shortcut=st.just("projection")),
    st.builds(
        DenseNet,
        depth=st.sampled_from((10, 16)),
        growth_rate=st.integers(1, 9),
        initial_channels=st.integers(1, 9),
    ),
    st.builds(ResNet, depth=st.just(18), layout=st.just("imagenet")),
)


@settings(max_examples=12, deadline=None)
@given(configs, st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_exported_and_imported_variables_are_the_same_to_the_bit(config, classes, channels, seed):
    variables = random_variables(config, classes, channels, seed)
    imported = from_torch(config, to_torch(config, variables))
    assert_same(flatten_dict(imported, sep="/"), flatten_dict(variables, sep="/"))


@pytest.fixture(scope="module")
def cifar_state():
    return arrays(randomized(reference.CifarResNet(1, CLASSES)))


def test_prefix_of_data_parallel_and_missing_counters_do_not_matter(cifar_state):
    wrapped = {
        f"module.{name}": array
        for name, array in cifar_state.items()
        if not name.endswith("num_batches_tracked")
    }
    arrays_of_wrapped = flatten_dict(from_torch(ResNet(8), wrapped), sep="/")
    assert_same(arrays_of_wrapped, flatten_dict(from_torch(ResNet(8), cifar_state), sep="/"))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64], ids=str)
def test_other_floats_become_float32(cifar_state, dtype):
    """Counters, which are not used, may have any type."""
    converted = {name: array.astype(dtype) for name, array in cifar_state.items()}
    converted["bn1.num_batches_tracked"] = np.zeros((), np.uint8)
    expected = {name: array.astype(np.float32) for name, array in converted.items()}
    imported = flatten_dict(from_torch(ResNet(8), converted), sep="/")
    assert_same(imported, flatten_dict(from_torch(ResNet(8), expected), sep="/"))


def test_the_classifier_may_be_left_out(cifar_state):
    """It may be missing, or another one may be in its place."""
    expected = from_torch(ResNet(8), cifar_state)
    del expected["params"]["head"]
    expected = flatten_dict(expected, sep="/")
    headless = {k: array for k, array in cifar_state.items() if not k.startswith("linear.")}
    for state in (cifar_state, headless, headless | {"linear.0.weight": np.zeros(3)}):
        assert_same(flatten_dict(from_torch(ResNet(8), state, with_head=False), sep="/"), expected)
    with pytest.raises(UsageError, match=r"linear\.weight is missing"):
        from_torch(ResNet(8), headless)
    assert head_features(ResNet(8), 3) == 64


def test_names_are_those_of_the_other_library(cifar_state):
    names = names_of(ResNet(8))
    assert (names.stem, names.head) == ("conv1", "linear")
    assert names.tensors == {n for n in cifar_state if not n.endswith("num_batches_tracked")}
    assert names.tensors - names.without_head == {"linear.weight", "linear.bias"}


def test_older_names_of_densenet_tensors_are_read():
    config, state = DenseNet(16, 6), arrays(randomized(cifar_dense()))
    older = {
        name.replace("norm1.", "norm.1.")
        .replace("conv1.", "conv.1.")
        .replace("norm2.", "norm.2.")
        .replace("conv2.", "conv.2."): array
        for name, array in state.items()
    }
    assert "features.denseblock1.denselayer2.norm.1.weight" in older
    arrays_of_older = flatten_dict(from_torch(config, older), sep="/")
    assert_same(arrays_of_older, flatten_dict(from_torch(config, state), sep="/"))


def changed(name, array):
    return lambda state: state | {name: array}


def without(name):
    return lambda state: {key: array for key, array in state.items() if key != name}


CONV, HEAD = "layer2.0.conv1.weight", "linear.weight"
WRONG = {
    "missing": (without(CONV), f"{CONV} is missing"),
    "no stem": (without("conv1.weight"), "conv1.weight is missing"),
    "no head": (without(HEAD), f"{HEAD} is missing"),
    "no bias": (without("linear.bias"), "linear.bias is missing"),
    "surplus": (changed("layer3.1.conv1.weight", np.zeros(3)), "layer3.1.conv1.weight"),
    "shape": (changed(CONV, np.zeros((32, 16, 3, 1), np.float32)), CONV),
    "rank of the head": (changed(HEAD, np.zeros((), np.float32)), HEAD),
    "no classes": (changed(HEAD, np.zeros((0, 64), np.float32)), HEAD),
    "no channels": (changed("conv1.weight", np.zeros((16, 0, 3, 3), np.float32)), "conv1.weight"),
    "int64": (changed(CONV, np.zeros((32, 16, 3, 3), np.int64)), f"{CONV} is int64"),
    "complex": (changed("bn1.bias", np.zeros(16, np.complex64)), "bn1.bias is complex64"),
    "too large": (
        changed("bn1.bias", np.full(16, 1e39)),
        "bn1.bias has values beyond the range of float32",
    ),
    "infinite": (changed("linear.bias", np.full(CLASSES, np.inf, np.float32)), "linear.bias"),
    "not a number": (changed("bn1.bias", np.full(16, np.nan, np.float32)), "bn1.bias"),
    "variance": (changed("bn1.running_var", -np.ones(16, np.float32)), "bn1.running_var"),
    "no tensors": (lambda state: {}, "conv1.weight is missing"),
    "a name twice": (
        lambda state: (
            changed("features.denselayer1.norm1.weight", np.zeros(1))(state)
            | {"features.denselayer1.norm.1.weight": np.zeros(1)}
        ),
        "two tensors for 'features.denselayer1.norm1.weight'",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_tensor_that_does_not_fit_is_named(cifar_state, change, message):
    with pytest.raises(UsageError) as refusal:
        from_torch(ResNet(8), change(cifar_state))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


ONLY_HERE = [
    ("shortcut", ResNet(8, shortcut="none")),
    ("shortcut", ResNet(8, shortcut="shortcut_gating")),
    ("block", ResNet(11, block="bottleneck")),
    ("order", ResNet(8, order="full_pre")),
    ("shortcut", ResNet(18, "imagenet", shortcut="projection_all")),
    ("order", ResNet(18, "imagenet", order="bn_after_addition")),
    ("stride_on", ResNet(50, "imagenet", stride_on="1x1")),
    ("stem", ResNet(18, "imagenet", stem="deep")),
    ("squeeze_excitation", ResNet(8, squeeze_excitation=4)),
    ("widening", ResNet(8, widening=2)),
    ("order", ResNet(10, widening=2, order="full_pre")),
    ("stochastic_depth", ResNet(8, stochastic_depth=0.5)),
    ("pool_first", ResNet(50, "imagenet", order="full_pre")),
    ("block", ResNet(18, "imagenet", order="full_pre", pool_first=True)),
    ("bottleneck", DenseNet(7, 4, bottleneck=False)),
    ("compression", DenseNet(10, 4, compression=0.7)),
]


def test_stochastic_depth_by_picture_does_not_change_what_is_exported():
    config = ResNet(8, stochastic_depth=0.5, stochastic_depth_by="picture")
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes(config, 5, 3))
    exported, plain = to_torch(config, variables), to_torch(ResNet(8), variables)
    assert exported.keys() == plain.keys()
    jax.tree.map(np.testing.assert_array_equal, exported, plain)


@pytest.mark.parametrize(("field", "config"), ONLY_HERE)
def test_networks_that_no_other_library_has_are_refused(field, config):
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes(config, 5, 3))
    with pytest.raises(UsageError, match=rf"\.{field} is "):
        to_torch(config, variables)
    with pytest.raises(UsageError, match=rf"\.{field} is "):
        from_torch(config, {})
