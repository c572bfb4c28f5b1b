"""Residual networks as declarations: depth, layout, block, shortcut, order, branch."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from resflax.branches import Branch
from resflax.declarations.checks import added, check_types, refuse
from resflax.declarations.layouts import DEEPEST, Layout
from resflax.declarations.own import Own, as_own, check_derived, naming
from resflax.orders import ORDERS
from resflax.shortcuts import SHORTCUTS, Shortcut, own_fields

Block = Literal["basic", "bottleneck"]
StrideOn = Literal["1x1", "3x3"]

if TYPE_CHECKING:  # type checkers cannot read these from the tables
    ShortcutName = str
    OrderName = str
    # A class, or a text such as "my_shortcuts.py:LearnedScale", becomes an Own when constructed.
    AnyShortcut = str | type[Shortcut] | Own
    AnyBranch = str | type[Branch] | Own
else:
    ShortcutName = Literal[tuple(SHORTCUTS)]
    OrderName = Literal[tuple(ORDERS)]
    AnyShortcut = ShortcutName | Own
    AnyBranch = Own

# The block and the units per stage of every depth: He et al. 2015, Table 1; He et al. 2016,
# appendix, for 200 layers.
IMAGENET_RESNETS: dict[int, tuple[Block, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}

_CONVS_PER_UNIT: dict[Block, int] = {"basic": 2, "bottleneck": 3}

# Weighted layers of a cifar net outside its branches. 2: the stem and the classifier; 4: wide
# residual networks also count the projections, one in each stage, but not the classifier.
_OTHER_LAYERS: dict[Block, tuple[int, ...]] = {"basic": (2, 4), "bottleneck": (2,)}

SHORTCUT_FIELDS = tuple(sorted({name for cls in SHORTCUTS.values() for name in own_fields(cls)}))
"""Fields of a `ResNet` that only some shortcuts have."""


@dataclass(frozen=True)
class ResNet:
    """A residual network or, with `shortcut="none"`, its plain counterpart.

    Sources: He et al. 2015 (arXiv 1512.03385), Table 1 and section 4.2; He et al. 2016
    (arXiv 1603.05027), Tables 1 and 2, also for the bottleneck units of CIFAR nets; Zagoruyko &
    Komodakis 2016 (arXiv 1605.07146) for wide networks: WRN-28-10 is
    `ResNet(28, widening=10, order="full_pre")`.
    """

    depth: int
    """Weighted layers. cifar: 6n+2 or 6n+4 (basic; n units in each stage; the second as wide
    residual networks are counted), or 9n+2 (bottleneck); imagenet: 18, 34, ... 200."""

    layout: Layout = "cifar"
    """cifar: 3x3 stem, three stages (16, 32, 64 maps). imagenet: 7x7 stem, pooling, four stages."""

    block: Block | None = None
    """basic (3x3, 3x3) or bottleneck (1x1, 3x3, 1x1). None: derived from depth."""

    shortcut: AnyShortcut | None = None
    """How a unit's input is joined with its branch; resflax/shortcuts.py has them all. A class of
    your own is derived from resflax.models.Shortcut and given as itself or as file.py:Class. none:
    not at all (the plain net); zero_pad, projection, projection_all: options A, B and C of He et
    al. 2015; projection_pooled: ResNet-D (He et al. 2018); constant_scaling, exclusive_gating,
    shortcut_gating, conv (projection_all by another name), dropout: He et al. 2016, Table 1. None:
    zero_pad for basic units of the cifar layout with a depth of 6n+2, else projection."""

    zero_pad_side: Literal["end", "both"] | None = None
    """Where an identity shortcut gets its missing channels. end: all of them after the others
    (fb.resnet.torch); both: half before and half after them (akamaster's pytorch_resnet_cifar10).
    None: end."""

    shortcut_scale: float | None = None
    """For constant_scaling: factor of the shortcut. None: 0.5."""

    branch_scale: float | None = None
    """For constant_scaling: factor of the residual branch. None: 0.5."""

    gate_bias: float | None = None
    """For exclusive_gating and shortcut_gating: initial bias of the gate. None: -6."""

    shortcut_dropout_rate: float | None = None
    """For the shortcut dropout: probability of dropping one of its activations. None: 0.5."""

    order: OrderName = "post"
    """Order of BN, ReLU, convolution and addition: He et al. 2016, Table 2 and Figure 4a-e.
    post: the original; full_pre: BN and ReLU before each convolution."""

    stride_on: StrideOn | None = None
    """Which convolution of a bottleneck has the stride: the first 1x1 (the papers) or the 3x3
    (fb.resnet.torch, torchvision). None: 1x1 for bottlenecks of the cifar layout, else 3x3."""

    bottleneck_width: int | None = None
    """Channels of a bottleneck's 3x3 convolution in the first stage; each later stage has twice as
    many. None: 64 for the imagenet layout, 16 for cifar. 128 makes wide_resnet50_2."""

    groups: int = 1
    """Groups of a bottleneck's 3x3 convolution: ResNeXt's cardinality (Xie et al. 2017)."""

    widening: int = added(1)
    """For basic units of the cifar layout: factor of the feature maps in all three stages, the k of
    wide residual networks (Zagoruyko & Komodakis 2016). The stem keeps 16 maps."""

    stem: Literal["conv", "deep"] = "conv"
    """conv: one convolution; deep: three 3x3 convolutions with 32, 32, 64 maps in place of the 7x7
    of the imagenet layout (ResNet-C, He et al. 2018, arXiv 1812.01187)."""

    pool_first: bool = False
    """For full_pre in the imagenet layout: whether the stem pools before its BN and ReLU (timm,
    TF-Slim) or after them (fb.resnet.torch). In evaluation the two differ only where a BN scale is
    negative."""

    squeeze_excitation: int | None = None
    """Reduction ratio of squeeze-and-excitation on every branch (Hu et al. 2018). None: branches
    have no squeeze-and-excitation."""

    zero_init_last_scale: bool = False
    """Start the scale of each branch's last BN at 0, so that every unit starts as its shortcut
    (Goyal et al. 2017, arXiv 1706.02677)."""

    dropout_rate: float = added(0.0)
    """For basic units: probability of dropping an activation directly before the second convolution
    (Zagoruyko & Komodakis 2016, section 2.4; on CIFAR they use 0.3)."""

    stochastic_depth: float = 0.0
    """Probability that a training step drops the branch of the last unit. The probability grows
    linearly from the first unit to the last (Huang et al. 2016, arXiv 1603.09382: 0.5). 0: no
    branch is dropped."""

    stochastic_depth_by: Literal["batch", "picture"] = added("batch")
    """Whether a branch is dropped for the whole batch or for each picture. batch: evaluations scale
    the branch by its probability of survival (Huang et al. 2016). picture: training divides the
    branches that are kept by that probability, so that evaluations change nothing. The first unit
    is then never dropped (timm's drop_path_rate)."""

    remat: bool = False
    """Keep only the input of each unit and recompute its activations in the backward pass. This
    takes less memory and about a third more computation; the numbers stay the same."""

    unit: AnyBranch | None = added(None)
    """A class of your own that computes the branch of every unit. It is derived from
    resflax.models.Branch and given as itself or as file.py:Class. None: the branch consists of the
    block's convolutions."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value, or for fields that do not fit together."""
        _take_own(self, "shortcut", Shortcut, "x", "branch")
        _take_own(self, "unit", Branch, "x")
        check_types(self)
        self._check_depth()
        self._check_shortcut()
        self._check_block()
        if self.stem == "deep" and self.layout == "cifar":
            refuse(self, "stem", "only the imagenet layout has a deep stem")
        if self.pool_first and (self.layout, self.order) != ("imagenet", "full_pre"):
            refuse(self, "pool_first", "only full_pre in the imagenet layout has that choice")
        if not 0 <= self.dropout_rate < 1:
            refuse(self, "dropout_rate", "it must be at least 0 and below 1")
        if self.dropout_rate and self.resolved_block == "bottleneck":
            refuse(self, "dropout_rate", "only basic units have dropout between their convolutions")
        if not 0 <= self.stochastic_depth < 1:
            refuse(self, "stochastic_depth", "it must be at least 0 and below 1")
        if self.stochastic_depth and self.shortcut == "none":
            refuse(self, "stochastic_depth", "a plain net has no way around a dropped unit")
        if self.stochastic_depth_by == "picture" and not self.stochastic_depth:
            refuse(self, "stochastic_depth_by", "it needs a stochastic_depth above 0")
        if self.zero_init_last_scale and self.shortcut == "none":
            refuse(self, "zero_init_last_scale", "a plain net would be zero everywhere")
        if self.unit is not None:
            self._check_unit()
        if self.zero_init_last_scale and not ORDERS[self.order].branch_ends_in_norm:
            orders = " and ".join(n for n, order in ORDERS.items() if order.branch_ends_in_norm)
            refuse(self, "zero_init_last_scale", f"only branches of {orders} end in BN")

    def _check_depth(self) -> None:
        if self.layout == "imagenet":
            if self.depth not in IMAGENET_RESNETS:
                known = ", ".join(map(str, IMAGENET_RESNETS))
                refuse(self, "depth", f"the imagenet layout has {known}")
            block = IMAGENET_RESNETS[self.depth][0]
            if self.block not in (None, block):
                refuse(self, "block", f"the imagenet layout of depth {self.depth} is {block}")
        elif self.depth > DEEPEST:
            refuse(self, "depth", f"it must be at most {DEEPEST:,}")
        elif not any(_units(self.depth, block) for block in self._possible_blocks()):
            forms = " or ".join(
                " or ".join(f"{3 * _CONVS_PER_UNIT[block]}n+{n}" for n in _OTHER_LAYERS[block])
                + f" ({block} units)"
                for block in self._possible_blocks()
            )
            refuse(self, "depth", f"the cifar layout needs {forms} with n >= 1")

    def _check_shortcut(self) -> None:
        fields = _fields_of_shortcut(self.resolved_shortcut)
        for field in SHORTCUT_FIELDS:
            if getattr(self, field) is not None and field not in fields:
                having = [name for name, cls in SHORTCUTS.items() if field in own_fields(cls)]
                refuse(self, field, f"only the shortcut {' or '.join(having)} has it")
        if isinstance(self.resolved_shortcut, Own):
            return
        for field in SHORTCUTS[self.resolved_shortcut].probability_fields:
            probability = getattr(self, field)
            if probability is not None and not 0 <= probability < 1:
                refuse(self, field, "it must be at least 0 and below 1")

    def _check_block(self) -> None:
        if self.widening < 1:
            refuse(self, "widening", "it must be at least 1")
        if self.widening > 1 and (self.layout, self.resolved_block) != ("cifar", "basic"):
            allowed = (
                "only basic units of the cifar layout have it; bottlenecks are widened by "
                "bottleneck_width (128 makes wide_resnet50_2)"
            )
            refuse(self, "widening", allowed)
        if self.resolved_block == "basic":
            if self.stride_on == "1x1":
                refuse(self, "stride_on", "basic units have no 1x1 convolution")
            if self.bottleneck_width is not None:
                refuse(self, "bottleneck_width", "basic units have no bottleneck")
            if self.groups != 1:
                refuse(self, "groups", "only the 3x3 convolution of a bottleneck has groups")
        if self.bottleneck_width is not None and self.bottleneck_width < 1:
            refuse(self, "bottleneck_width", "it must be at least 1")
        if self.groups < 1 or self.inner_width % self.groups:
            refuse(self, "groups", f"it must divide the bottleneck's width, {self.inner_width}")
        ratio, maps = (
            self.squeeze_excitation,
            self.basic_width if self.resolved_block == "basic" else 4 * self.width,
        )
        if ratio is not None and (ratio < 1 or maps % ratio):
            refuse(self, "squeeze_excitation", f"it must divide the first stage's maps, {maps}")

    def _check_unit(self) -> None:
        """Refuses fields that shape the convolutions of a block, because the unit is another."""
        for field in ("stride_on", "bottleneck_width"):
            if getattr(self, field) is not None:
                refuse(self, field, f"the unit {self.unit} decides that itself")
        for field, default in (("groups", 1), ("zero_init_last_scale", False), ("dropout_rate", 0)):
            if getattr(self, field) != default:
                refuse(self, field, f"the unit {self.unit} decides that itself")

    def _possible_blocks(self) -> tuple[Block, ...]:
        return (self.block,) if self.block else ("basic", "bottleneck")

    @property
    def resolved_block(self) -> Block:
        """`block`, or the one that follows from the depth if it was left out."""
        if self.layout == "imagenet":
            return IMAGENET_RESNETS[self.depth][0]
        return next(block for block in self._possible_blocks() if _units(self.depth, block))

    @property
    def units_per_stage(self) -> tuple[int, ...]:
        """Residual units in each stage."""
        if self.layout == "imagenet":
            return IMAGENET_RESNETS[self.depth][1]
        return (_units(self.depth, self.resolved_block),) * 3

    @property
    def width(self) -> int:
        """Feature maps of the stem, and of the 3x3 convolutions in the first stage of He et al."""
        return 64 if self.layout == "imagenet" else 16

    @property
    def basic_width(self) -> int:
        """Feature maps of basic units in the first stage; each later stage has twice as many."""
        return self.width * self.widening

    @property
    def inner_width(self) -> int:
        """`bottleneck_width`, or the papers' value if it was left out."""
        return self.width if self.bottleneck_width is None else self.bottleneck_width

    @property
    def scales_branches(self) -> bool:
        """Whether evaluations scale the branches by their probabilities of survival."""
        return self.stochastic_depth > 0 and self.stochastic_depth_by == "batch"

    @property
    def resolved_shortcut(self) -> ShortcutName | Own:
        """`shortcut`, or the papers' choice if it was left out."""
        if self.shortcut is not None:
            assert not isinstance(self.shortcut, type), "__post_init__ makes it an Own"
            return self.shortcut
        basic = self.layout == "cifar" and self.resolved_block == "basic"
        option_a = basic and not _counts_projections(self.depth)
        return "zero_pad" if option_a else "projection"

    def resolved(self) -> "ResNet":
        """The same network with every derived field written out."""
        papers_stride: StrideOn = "3x3"
        if self.layout == "cifar" and self.resolved_block == "bottleneck":
            papers_stride = "1x1"
        derived: dict[str, Any] = {
            "block": self.resolved_block,
            "shortcut": self.resolved_shortcut,
            "stride_on": self.stride_on or papers_stride,
            "bottleneck_width": None if self.resolved_block == "basic" else self.inner_width,
        }
        if self.unit is not None:
            derived |= {"stride_on": None, "bottleneck_width": None}
        for field, default in _fields_of_shortcut(self.resolved_shortcut).items():
            if getattr(self, field) is None:
                derived[field] = default
        return dataclasses.replace(self, **derived)


assert set(SHORTCUT_FIELDS) <= {field.name for field in dataclasses.fields(ResNet)}, (
    "every field of a shortcut's own must be a field of ResNet, with None for the default"
)


def _fields_of_shortcut(shortcut: ShortcutName | Own) -> dict[str, Any]:
    """The fields of `ResNet` that the shortcut has, with their defaults."""
    if isinstance(shortcut, Own):  # any class of a user's own may use the identity
        return {"zero_pad_side": "end"}
    return own_fields(SHORTCUTS[shortcut])


def _take_own(declaration: Any, field: str, base: type, *arguments: str) -> None:
    """Turns a class, or a text that names one, into an `Own`, and checks the class.

    A declaration that was read from a run is not checked, because that would run its code.
    """
    with naming(declaration, field):
        given = getattr(declaration, field)
        if given in SHORTCUTS.values():
            given = given.names[0]
        if isinstance(given, type):
            check_derived(given, base, *arguments)
        own = as_own(given)
        if isinstance(own, Own) and own.is_loaded:
            check_derived(own.load(), base, *arguments)
    object.__setattr__(declaration, field, own)


def _units(depth: int, block: Block) -> int:
    """Units per stage of a CIFAR net of this depth, or 0 if there is no such net."""
    for others in _OTHER_LAYERS[block]:
        units, remainder = divmod(depth - others, 3 * _CONVS_PER_UNIT[block])
        if remainder == 0 and units > 0:
            return units
    return 0


def _counts_projections(depth: int) -> bool:
    """Whether a CIFAR net of basic units with this depth counts its projections: 6n+4."""
    return depth % 6 == 4
