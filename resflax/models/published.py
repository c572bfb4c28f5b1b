"""The sizes of networks as papers and libraries print them, and why some differ from our counts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Printed figures of a network; None for figures that were not printed."""

    params: str | None = None
    """Parameters, as a number and M (millions) or as an exact count."""
    macs: str | None = None
    """Multiply-adds for one image, as a number and G (10**9)."""
    source: str = ""
    """Where the figures are printed."""
    note: str = ""
    """Why the printed figures differ from the counted ones."""


_STRIDE = "the paper has the stride on the 1x1: --model.stride-on 1x1 gives {} G"

PUBLISHED: dict[str, Published] = {
    "resnet18": Published("11,689,512", "1.8 G", "He 2015 Table 1; torchvision"),
    "resnet34": Published(
        "21,797,672",
        "3.6 G",
        "He 2015 Table 1; torchvision",
        "printed is option A: --model.shortcut zero_pad gives 3.644 G",
    ),
    "resnet50": Published(
        "25,557,032", "3.8 G", "He 2015 Table 1; torchvision", _STRIDE.format("3.858")
    ),
    "resnet101": Published(
        "44,549,160", "7.6 G", "He 2015 Table 1; torchvision", _STRIDE.format("7.570")
    ),
    "resnet152": Published(
        "60,192,808", "11.3 G", "He 2015 Table 1; torchvision", _STRIDE.format("11.282")
    ),
    "wide_resnet50_2": Published("68,883,240", None, "torchvision"),
    "resnext50_32x4d": Published("25,028,904", None, "torchvision"),
    "resnet20": Published("0.27 M", None, "He 2015 Table 6"),
    "resnet32": Published("0.46 M", None, "He 2015 Table 6"),
    "resnet44": Published("0.66 M", None, "He 2015 Table 6"),
    "resnet56": Published("0.85 M", None, "He 2015 Table 6"),
    "resnet110": Published("1.7 M", None, "He 2015 Table 6"),
    "resnet1202": Published(
        "19.4 M",
        None,
        "He 2015 Table 6",
        "misprint: Huang 2017 Table 2 has 10.2 M for 1202 layers",
    ),
    "preact_resnet164": Published("1.7 M", None, "He 2016 Table 4"),
    "preact_resnet1001": Published(
        "10.2 M", None, "He 2016 Table 4", "misprint: 10.2 M leaves batch norm out"
    ),
    "wrn_40_4": Published("8.9 M", None, "Zagoruyko 2016 Table 5"),
    "wrn_16_8": Published("11.0 M", None, "Zagoruyko 2016 Table 5"),
    "wrn_28_10": Published("36.5 M", None, "Zagoruyko 2016 Table 5"),
    "densenet121": Published("7,978,856", None, "torchvision"),
    "densenet161": Published(
        "28,681,000", None, "torchvision", "in an earlier version of Huang 2017 only"
    ),
    "densenet169": Published("14,149,480", None, "torchvision"),
    "densenet201": Published("20,013,928", None, "torchvision"),
    "densenet264": Published(
        None,
        None,
        "Huang 2017 Table 1",
        "misprint: by the rule that names the others it has 265 layers",
    ),
    "densenet_40_12": Published("1.0 M", None, "Huang 2017 Table 2"),
    "densenet_100_12": Published("7.0 M", None, "Huang 2017 Table 2"),
    "densenet_100_24": Published(
        "27.2 M",
        None,
        "Huang 2017 Table 2",
        "plain DenseNets start with 16 maps as printed, with 2k in the authors' code (28.07 M)",
    ),
    "densenet_bc_100_12": Published("0.8 M", None, "Huang 2017 Table 2"),
    "densenet_bc_250_24": Published("15.3 M", None, "Huang 2017 Table 2"),
    "densenet_bc_190_40": Published("25.6 M", None, "Huang 2017 Table 2"),
}
"""Printed figures by the networks' names in `models.zoo`; networks without figures are left out."""
