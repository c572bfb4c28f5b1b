"""Every network has exactly its paper's parameters and multiply-adds.

`PUBLISHED` holds counts that were derived from the papers' tables independently of this code, and
checked against the numbers that torchvision and other authors publish. The functions below derive
other counts layer by layer from the papers' descriptions.
"""

from functools import cache
from typing import NamedTuple

import pytest

from resflax import DenseNet, ResNet
from resflax.declarations.models import Model, Published
from resflax.models.summary import Summary, summarize
from resflax.models.zoo import TASKS, named


@cache
def summary(config: Published) -> Summary:
    task = TASKS[config.layout]
    return summarize(config, task.num_classes, task.image_shape)


def params(config: Model, kind: str) -> int:
    return sum(layer.params for layer in summary(config).layers if layer.kind == kind)


class Counts(NamedTuple):
    config: Model
    conv: int
    bn: int
    fc: int
    macs: int | None = None
    """None if the sources do not have it."""


def cifar(depth: int, option: str) -> ResNet:
    shortcuts = {"A": "zero_pad", "B": "projection", "C": "projection_all", "plain": "none"}
    return ResNet(depth, shortcut=shortcuts[option])


def imagenet(depth: int, option: str = "B") -> ResNet:
    shortcuts = {"A": "zero_pad", "B": "projection", "plain": "none"}
    return ResNet(depth, layout="imagenet", shortcut=shortcuts[option])


def dense(depth: int, growth_rate: int, initial_channels: int | None = None) -> DenseNet:
    return DenseNet(
        depth,
        growth_rate,
        bottleneck=False,
        compression=1.0,
        initial_channels=initial_channels,
    )


# Trainable parameters of convolutions, batch norms and classifier; multiply-adds with padding.
# He et al. 2015 (arXiv 1512.03385), Tables 1 and 6; He et al. 2016 (arXiv 1603.05027), Table 4;
# Huang et al. 2017 (arXiv 1608.06993), Tables 1 and 2. CIFAR nets have 10 classes.
PUBLISHED = {
    "ResNet-20 A": Counts(cifar(20, "A"), 267_696, 1_376, 650, 40_551_040),
    "ResNet-32 A": Counts(cifar(32, "A"), 461_232, 2_272, 650, 68_862_592),
    "ResNet-44 A": Counts(cifar(44, "A"), 654_768, 3_168, 650, 97_174_144),
    "ResNet-56 A": Counts(cifar(56, "A"), 848_304, 4_064, 650, 125_485_696),
    "ResNet-110 A": Counts(cifar(110, "A"), 1_719_216, 8_096, 650, 252_887_680),
    "ResNet-1202 A": Counts(named("resnet1202"), 19_330_992, 89_632, 650, 2_829_238_912),
    "ResNet-20 B": Counts(cifar(20, "B"), 270_256, 1_568, 650, 40_813_184),
    "ResNet-32 B": Counts(cifar(32, "B"), 463_792, 2_464, 650, 69_124_736),
    "ResNet-44 B": Counts(cifar(44, "B"), 657_328, 3_360, 650, 97_436_288),
    "ResNet-56 B": Counts(cifar(56, "B"), 850_864, 4_256, 650, 125_747_840),
    "ResNet-110 B": Counts(cifar(110, "B"), 1_721_776, 8_288, 650, 253_149_824),
    "ResNet-1202 B": Counts(cifar(1202, "B"), 19_333_552, 89_824, 650, 2_829_501_056),
    "ResNet-20 C": Counts(cifar(20, "C"), 281_264, 2_048, 650, 42_648_192),
    "ResNet-32 C": Counts(cifar(32, "C"), 485_552, 3_392, 650, 72_532_608),
    "ResNet-44 C": Counts(cifar(44, "C"), 689_840, 4_736, 650, 102_417_024),
    "ResNet-56 C": Counts(cifar(56, "C"), 894_128, 6_080, 650, 132_301_440),
    "plain-20": Counts(cifar(20, "plain"), 267_696, 1_376, 650, 40_551_040),
    "plain-32": Counts(cifar(32, "plain"), 461_232, 2_272, 650, 68_862_592),
    "plain-44": Counts(cifar(44, "plain"), 654_768, 3_168, 650, 97_174_144),
    "plain-56": Counts(cifar(56, "plain"), 848_304, 4_064, 650, 125_485_696),
    "plain-110": Counts(cifar(110, "plain"), 1_719_216, 8_096, 650, 252_887_680),
    "pre-activation ResNet-110": Counts(named("preact_resnet110"), 1_719_216, 8_096, 650),
    "pre-activation ResNet-164": Counts(named("preact_resnet164"), 1_676_464, 24_224, 2_570),
    "pre-activation ResNet-1001": Counts(named("preact_resnet1001"), 10_175_920, 149_216, 2_570),
    "DenseNet 40-12": Counts(dense(40, 12), 997_136, 18_096, 4_490, 264_812_928),
    "DenseNet 100-12": Counts(dense(100, 12), 6_850_736, 117_216, 11_690, 1_769_516_448),
    "DenseNet 100-24": Counts(dense(100, 24), 26_994_608, 231_264, 23_210, 6_889_347_744),
    "DenseNet-BC 100-12": Counts(DenseNet(100, 12), 741_744, 23_988, 3_430, 287_929_692),
    "ResNet-18": Counts(imagenet(18), 11_166_912, 9_600, 513_000, 1_814_073_344),
    "ResNet-34": Counts(imagenet(34), 21_267_648, 17_024, 513_000, 3_663_761_408),
    "ResNet-50": Counts(imagenet(50), 23_454_912, 53_120, 2_049_000, 4_089_184_256),
    "ResNet-101": Counts(imagenet(101), 42_394_816, 105_344, 2_049_000, 7_801_405_440),
    "ResNet-152": Counts(imagenet(152), 57_992_384, 151_424, 2_049_000, 11_513_626_624),
    "ResNet-18 A": Counts(imagenet(18, "A"), 10_994_880, 7_808, 513_000, 1_794_805_760),
    "ResNet-34 A": Counts(imagenet(34, "A"), 21_095_616, 15_232, 513_000, 3_644_493_824),
    "plain-18": Counts(imagenet(18, "plain"), 10_994_880, 7_808, 513_000, 1_794_805_760),
    "plain-34": Counts(imagenet(34, "plain"), 21_095_616, 15_232, 513_000, 3_644_493_824),
    "DenseNet-121": Counts(named("densenet121"), 6_870_208, 83_648, 1_025_000, 2_834_161_664),
    "DenseNet-169": Counts(named("densenet169"), 12_326_080, 158_400, 1_665_000, 3_359_843_328),
    "DenseNet-201": Counts(named("densenet201"), 17_863_872, 229_056, 1_921_000, 4_291_365_888),
}


SLOW = {"ResNet-1202 B"}  # its option A is always counted


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in PUBLISHED],
)
def test_parameters_and_multiply_adds_are_those_of_the_published_networks(name):
    config, conv, bn, fc, macs = PUBLISHED[name]
    assert params(config, "Conv") == conv
    assert params(config, "BatchNorm") == bn
    assert params(config, "Dense") == fc
    assert summary(config).params == conv + bn + fc
    assert macs is None or summary(config).macs == macs


# (counted, without batch norm, millions as printed). Printed figures round the full count, except
# that of ResNet-1001: its 10.2 leaves batch norm out.
PRINTED = {
    "ResNet-20": (cifar(20, "A"), 269_722, 268_346, 0.27),
    "ResNet-32": (cifar(32, "A"), 464_154, 461_882, 0.46),
    "ResNet-44": (cifar(44, "A"), 658_586, 655_418, 0.66),
    "ResNet-56": (cifar(56, "A"), 853_018, 848_954, 0.85),
    "ResNet-110": (cifar(110, "A"), 1_727_962, 1_719_866, 1.7),
    "ResNet-1202": (named("resnet1202"), 19_421_274, 19_331_642, 19.4),
    "pre-activation ResNet-164": (named("preact_resnet164"), 1_703_258, 1_679_034, 1.7),
    "pre-activation ResNet-1001": (named("preact_resnet1001"), 10_327_706, 10_178_490, 10.2),
    "DenseNet 40-12": (named("densenet_40_12"), 1_019_722, 1_001_626, 1.0),
    "DenseNet 100-12": (named("densenet_100_12"), 6_979_642, 6_862_426, 7.0),
    "DenseNet 100-24": (named("densenet_100_24"), 27_249_082, 27_017_818, 27.2),
    "DenseNet-BC 100-12": (named("densenet_bc_100_12"), 769_162, 745_174, 0.8),
    "DenseNet-BC 250-24": (named("densenet_bc_250_24"), 15_324_406, 15_066_430, 15.3),
    "DenseNet-BC 190-40": (named("densenet_bc_190_40"), 25_624_430, 25_367_470, 25.6),
    # README of the authors' code.
    "Wide-DenseNet-BC 40-36": (DenseNet(40, 36), 1_542_682, 1_527_418, 1.5),
    "Wide-DenseNet-BC 40-48": (DenseNet(40, 48), 2_733_130, 2_712_778, 2.7),
    "Wide-DenseNet-BC 40-60": (DenseNet(40, 60), 4_261_690, 4_236_250, 4.3),
}


@pytest.mark.parametrize("name", PRINTED)
def test_the_count_rounds_to_the_printed_figure(name):
    config, counted, without_bn, printed = PRINTED[name]
    assert summary(config).params == counted
    assert counted - params(config, "BatchNorm") == without_bn
    rounding = without_bn if name == "pre-activation ResNet-1001" else counted
    digits = 2 if printed < 1 and name.startswith("ResNet") else 1
    assert round(rounding / 1e6, digits) == printed


@pytest.mark.parametrize(
    ("depth", "growth_rate", "count"),
    [(40, 12, 1_059_298), (100, 12, 7_083_538), (100, 24, 28_071_706)],
)
def test_a_stem_of_2k_maps_counts_as_in_the_authors_code_not_as_in_their_table(
    depth, growth_rate, count
):
    assert summary(dense(depth, growth_rate, 2 * growth_rate)).params == count


@pytest.mark.parametrize(("depth", "gmacs"), [(50, 3.858), (101, 7.570), (152, 11.282)])
def test_a_stride_on_the_1x1_saves_multiply_adds_as_in_the_paper(depth, gmacs):
    # He et al. 2015, Table 1 prints 3.8, 7.6 and 11.3.
    counted = summary(ResNet(depth, layout="imagenet", stride_on="1x1"))
    assert round(counted.macs / 1e9, 3) == gmacs
    assert counted.params == summary(imagenet(depth)).params


class Layer(NamedTuple):
    """The sizes of a convolution or dense layer from which its counts follow."""

    kernel: int
    inputs: int
    outputs: int
    side: int
    """Height and width of the output."""
    groups: int = 1
    bias: bool = False

    @property
    def params(self) -> int:
        weights = self.kernel**2 * self.inputs * self.outputs // self.groups
        return weights + self.outputs * self.bias

    @property
    def macs(self) -> int:
        return self.side**2 * (self.params - self.outputs * self.bias)


def bottlenecks(blocks, inner=64, groups=1):
    """The convolutions and the units (inputs, inner, outputs) of a bottleneck ImageNet network.

    Stem and head are not among them.
    """
    layers, units, inputs, side = [], [], 64, 56
    for stage, count in enumerate(blocks):
        width, outputs, before = inner * 2**stage, 256 * 2**stage, side
        side = 56 // 2**stage
        for unit in range(count):
            if unit == 0:
                layers.append(Layer(1, inputs, outputs, side))
            layers.append(Layer(1, inputs, width, before if unit == 0 else side))
            layers.append(Layer(3, width, width, side, groups))
            layers.append(Layer(1, width, outputs, side))
            units.append((inputs, width, outputs))
            inputs = outputs
    return layers, units


STEM, HEAD = Layer(7, 3, 64, 112), Layer(1, 2048, 1000, 1, bias=True)
RESNET50 = (3, 4, 6, 3)


def post_activation_norms(units):
    """Channels of the BN after the stem and after all convolutions, including projections."""
    projections = sum({outputs for _, _, outputs in units})
    return 64 + projections + sum(2 * inner + outputs for _, inner, outputs in units)


@pytest.mark.parametrize(
    ("name", "inner", "groups", "torchvision"),
    [("wide_resnet50_2", 128, 1, 68_883_240), ("resnext50_32x4d", 128, 32, 25_028_904)],
)
def test_wide_and_grouped_bottlenecks(name, inner, groups, torchvision):
    layers, units = bottlenecks(RESNET50, inner, groups)
    layers += [STEM, HEAD]
    counted = summary(named(name))
    assert counted.params == torchvision
    assert counted.params == sum(x.params for x in layers) + 2 * post_activation_norms(units)
    assert counted.macs == sum(x.macs for x in layers)


def test_resnet200_is_pre_activated():
    # Each convolution has a BN before it, and the network has one at the end. The BN of the first
    # unit is that of the stem.
    layers, units = bottlenecks((3, 24, 36, 3))
    layers += [STEM, HEAD]
    norms = 2048 + sum(inputs + 2 * inner for inputs, inner, _ in units)
    counted = summary(named("resnet200"))
    assert counted.params == sum(x.params for x in layers) + 2 * norms
    assert counted.macs == sum(x.macs for x in layers)


def test_pool_first_changes_no_count():
    config = ResNet(50, layout="imagenet", order="full_pre")
    first = ResNet(50, layout="imagenet", order="full_pre", pool_first=True)
    assert summary(config).params == summary(first).params == 25_549_352  # timm's resnetv2_50
    assert summary(config).macs == summary(first).macs


def test_resnet50_d():
    # The stem has three 3x3 convolutions. Pooled projections cost as much as strided ones.
    deep = [Layer(3, 3, 32, 112), Layer(3, 32, 32, 112), Layer(3, 32, 64, 112)]
    config = ResNet(50, layout="imagenet", stem="deep", shortcut="projection_pooled")
    base, counted = summary(imagenet(50)), summary(config)
    more_norms = 2 * (32 + 32)
    assert counted.params == base.params - STEM.params + sum(x.params for x in deep) + more_norms
    assert counted.params == 25_576_264  # timm's resnet50d
    assert counted.macs == base.macs - STEM.macs + sum(x.macs for x in deep)


def test_squeeze_excitation():
    maps = [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3
    dense_layers = [Layer(1, c, c // 16, 1, bias=True) for c in maps]
    dense_layers += [Layer(1, c // 16, c, 1, bias=True) for c in maps]
    base = summary(imagenet(50))
    counted = summary(ResNet(50, layout="imagenet", squeeze_excitation=16))
    assert counted.params == base.params + sum(x.params for x in dense_layers)
    assert counted.params == 28_088_024  # timm's seresnet50
    assert counted.macs == base.macs + sum(x.macs for x in dense_layers)


@pytest.mark.parametrize("shortcut", ["exclusive_gating", "shortcut_gating"])
def test_a_gate_is_a_1x1_convolution_with_bias_in_every_unit(shortcut):
    n = 18
    gates = [Layer(1, 16, 16, 32, bias=True)] * n
    gates += [Layer(1, 16, 32, 16, bias=True)] + [Layer(1, 32, 32, 16, bias=True)] * (n - 1)
    gates += [Layer(1, 32, 64, 8, bias=True)] + [Layer(1, 64, 64, 8, bias=True)] * (n - 1)
    counted = summary(ResNet(110, shortcut=shortcut))
    assert counted.params == 1_727_962 + sum(x.params for x in gates)
    assert counted.macs == 252_887_680 + sum(x.macs for x in gates)


@pytest.mark.parametrize("shortcut", ["constant_scaling", "dropout"])
def test_shortcuts_without_weights_count_as_option_a(shortcut):
    assert summary(ResNet(110, shortcut=shortcut)).params == 1_727_962
    assert summary(ResNet(110, shortcut=shortcut)).macs == 252_887_680


def test_conv_shortcut_is_option_c():
    assert summary(ResNet(56, shortcut="conv")) == summary(ResNet(56, shortcut="projection_all"))


@pytest.mark.parametrize(
    "order", ["post", "bn_after_addition", "relu_before_addition", "relu_only_pre", "full_pre"]
)
def test_every_order_has_one_bn_for_each_convolution(order):
    # He et al. 2016, Table 2 compares nets of the same size.
    assert summary(ResNet(20, order=order)).params == 269_722
    # A projection has a BN if the last convolution of the branch has one.
    without_bn = order in ("bn_after_addition", "full_pre")
    expected = 272_474 - without_bn * 2 * (32 + 64)
    assert summary(ResNet(20, shortcut="projection", order=order)).params == expected


def wide(depth, k):
    """Parameters without batch norm, those of batch norm, and multiply-adds of WRN-depth-k.

    Zagoruyko & Komodakis 2016, Table 1, for 10 classes of 32x32x3 pictures. A BN stands before each
    3x3 convolution except the stem, and one at the end.
    """
    n, inputs, norms = (depth - 4) // 6, 16, 0
    layers = [Layer(3, 3, 16, 32)]
    for outputs, side in ((16 * k, 32), (32 * k, 16), (64 * k, 8)):
        layers.append(Layer(1, inputs, outputs, side))
        layers += [Layer(3, inputs, outputs, side)]
        layers += [Layer(3, outputs, outputs, side)] * (2 * n - 1)
        norms += inputs + (2 * n - 1) * outputs
        inputs = outputs
    layers.append(Layer(1, inputs, 10, 1, bias=True))
    return sum(x.params for x in layers), 2 * (norms + inputs), sum(x.macs for x in layers)


@pytest.mark.parametrize(
    ("depth", "k", "count", "printed"),
    [(40, 4, 8_949_210, 8.9), (16, 8, 10_961_370, 11.0), (28, 10, 36_479_194, 36.5)],
)
def test_wide_residual_networks(depth, k, count, printed):
    config = named(f"wrn_{depth}_{k}")
    weights, norms, macs = wide(depth, k)
    assert params(config, "BatchNorm") == norms
    assert summary(config).params == weights + norms == count
    assert summary(config).macs == macs
    assert round(count / 1e6, 1) == printed
    assert summary(ResNet(depth, widening=k, order="full_pre", dropout_rate=0.3)).params == count


def dense_imagenet(blocks, k):
    """Parameters and multiply-adds of a DenseNet-BC with 1000 classes on 224x224x3 pictures."""
    maps, side = 2 * k, 56
    layers, norms = [Layer(7, 3, maps, 112)], maps
    for block, depth in enumerate(blocks):
        if block > 0:
            norms += maps
            layers.append(Layer(1, maps, maps // 2, side))
            maps, side = maps // 2, side // 2
        for _ in range(depth):
            norms += maps + 4 * k
            layers += [Layer(1, maps, 4 * k, side), Layer(3, 4 * k, k, side)]
            maps += k
    layers.append(Layer(1, maps, 1000, 1, bias=True))
    return sum(x.params for x in layers) + 2 * (norms + maps), sum(x.macs for x in layers)


@pytest.mark.parametrize(
    ("name", "blocks", "k", "published"),
    [
        ("densenet121", (6, 12, 24, 16), 32, 7_978_856),
        ("densenet161", (6, 12, 36, 24), 48, 28_681_000),  # torchvision
        ("densenet264", (6, 12, 64, 48), 32, 33_337_704),  # 31.79 * 2**20 in ECA-Net, Table 4
    ],
)
def test_imagenet_densenets(name, blocks, k, published):
    counted = summary(named(name))
    assert (counted.params, counted.macs) == dense_imagenet(blocks, k)
    assert counted.params == published


def test_activation_bytes_are_the_outputs_of_convolutions_norms_and_the_classifier():
    maps = 7 * 32 * 32 * 16 + 6 * 16 * 16 * 32 + 6 * 8 * 8 * 64  # ResNet-20's convolutions
    config = ResNet(20)
    assert summary(config).activation_bytes == 4 * (2 * maps + 10)
    half = summarize(config, 10, (32, 32, 3), dtype="bfloat16")
    assert half.activation_bytes == 2 * 2 * maps + 4 * 10  # logits stay float32
    assert (half.params, half.macs) == (summary(config).params, summary(config).macs)
