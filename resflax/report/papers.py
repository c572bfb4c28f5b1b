"""The figures that the papers report, each with its protocol as an experiment of this package.

A figure is a number in a paper. Because its protocol is an `Experiment`, a run can be compared with
it field by field. To add a paper, write a function that returns its figures and call it in
`paper_figures`.

Sources: He et al. 2015 (arXiv 1512.03385), He et al. 2016 (arXiv 1603.05027), Zagoruyko & Komodakis
2016 (arXiv 1605.07146), Huang et al. 2017 (arXiv 1608.06993). Errors are in per cent, on the test
split, with a single crop, at the end of training.
"""

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Any

from resflax.declarations.data import CIFAR10, CIFAR100, TFDS, Streamed
from resflax.declarations.models import Custom, DenseNet, Model, ResNet
from resflax.declarations.optimization import SGD, StepDecay
from resflax.experiment import Experiment, differences


@dataclass(frozen=True)
class PaperFigure:
    """One number in a paper."""

    source: str
    """The paper, and the table or figure in it."""
    error: float | None
    """Test error in per cent; None for a run that the paper calls failed."""
    statistic: str
    """How the paper's runs give the number: `one run`, `median of 5` or `mean of 5`."""
    protocol: Experiment
    """How the paper trained the network."""
    std: float | None = None
    """Standard deviation in percentage points, if the paper gives it."""
    note: str = ""
    """What else a reader should know about the number."""
    failed_above: float = 20.0
    """A failed run has an error above this many per cent. He et al. 2016 print "fail" above 20."""

    @property
    def printed(self) -> str:
        """The number as the paper prints it, or the bound above which a failed run's error is."""
        if self.error is None:
            return f"fail (above {self.failed_above:.0f} %)"
        return f"{self.error:.2f}" + ("" if self.std is None else f" ± {self.std:.2f}") + " %"

    @property
    def description(self) -> str:
        """The data, the statistic and the length of training, in words."""
        data = self.protocol.data
        cropped = isinstance(data, Streamed) or data.crop_padding > 0
        augmented = "augmented" if cropped or data.flip else "not augmented"
        parts = [
            f"{data.name} test split ({augmented} training pictures), one crop, last step",
            f"{self.statistic}, {_length(self.protocol)}, batch {self.protocol.batch_size}",
            self.note,
        ]
        return "; ".join(part for part in parts if part)


_NOT_PROTOCOL = (
    "name",
    "seed",
    "parallel",
    "precision",
    "log_every",
    "evaluate_every",
    "checkpoint_every",
    "keep_best",
    "data.type",
    "data.data_dir",
)
"""Fields that are not part of a protocol. A run may differ from the paper in them."""


def protocol_differences(figure: PaperFigure, experiment: Experiment) -> list[str]:
    """Lists the fields in which a run's protocol differs from the paper's.

    One entry may be `batch_size: 128 != 64`, with the paper's value first. If the schedules have
    different types, only the types are listed. `steps` and `epochs` are listed together as
    `length`.
    """
    paper = figure.protocol
    by_field = {text.split(":")[0]: text for text in differences(paper, experiment)}
    ignored = set(_NOT_PROTOCOL)
    if "schedule.type" in by_field:
        ignored |= {name for name in by_field if name.startswith("schedule.")} - {"schedule.type"}
    if by_field.keys() & {"steps", "epochs"}:
        ignored |= {"steps", "epochs"}
        by_field["length"] = f"length: {_length(paper)} != {_length(experiment)}"
    return [text for name, text in by_field.items() if name not in ignored]


def _length(experiment: Experiment) -> str:
    if experiment.steps is not None:
        return f"{experiment.steps:,} steps"
    return f"{experiment.epochs:g} epochs"


def nearest_figure(experiment: Experiment) -> PaperFigure | None:
    """The figure of the same network whose protocol differs least; None if no paper has one."""
    network = _network(experiment.model)
    figures = [figure for other, figure in _figures_by_network() if other == network]
    return min(figures, key=lambda f: len(protocol_differences(f, experiment)), default=None)


@cache
def _figures_by_network() -> tuple[tuple[Model, PaperFigure], ...]:
    """Every figure with its network."""
    return tuple((_network(figure.protocol.model), figure) for figure in paper_figures())


def _network(model: Model) -> Model:
    """The resolved model, without the dropout on its branches, which belongs to the protocol."""
    if isinstance(model, Custom):
        return model
    return dataclasses.replace(model.resolved(), dropout_rate=0.0)


@cache
def paper_figures() -> tuple[PaperFigure, ...]:
    """All figures that this module has from the papers."""
    return (
        *_he2015(),
        *_he2016_shortcuts(),
        *_he2016_orders(),
        *_he2016_deep(),
        *_zagoruyko2016(),
        *_huang2017(),
    )


def _he(name: str, model: Model, *, warmup: bool, data: TFDS | None = None) -> Experiment:
    """The protocol of He et al. 2015, section 4.2.

    In the paper of 2015, only networks of 110 layers and more have a warm-up; in that of 2016, all
    networks have one.
    """
    schedule: dict[str, Any] = {"boundaries": (32_000, 48_000), "factor": 0.1}
    if warmup:
        schedule |= {"warmup_steps": 400, "warmup_learning_rate": 0.01}
    return Experiment(
        name=name,
        model=model,
        data=data or CIFAR10(normalization="pixel"),
        batch_size=128,
        steps=64_000,
        optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
        schedule=StepDecay(**schedule),
    )


def _he2015() -> list[PaperFigure]:
    table, one_run = "He et al. 2015, Table 6", "one run"
    errors = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97}
    figures = [
        PaperFigure(table, error, one_run, _he(f"resnet{depth}", ResNet(depth), warmup=False))
        for depth, error in errors.items()
    ]
    for depth, error, std, statistic, note in (
        (110, 6.61, 0.16, "mean of 5", "the best of the five is 6.43"),
        (1202, 7.93, None, one_run, ""),
    ):
        protocol = _he(f"resnet{depth}", ResNet(depth), warmup=True)
        figures.append(PaperFigure(table, error, statistic, protocol, std, note))
    note = (
        "the paper plots plain nets in Figure 6 (left); of 110 layers it only says that the error "
        "is above 60 %"
    )
    protocol = _he("plain110", ResNet(110, shortcut="none"), warmup=True)
    source = "He et al. 2015, Figure 6"
    figures.append(PaperFigure(source, None, one_run, protocol, note=note, failed_above=60.0))
    return figures


def _he2016_shortcuts() -> list[PaperFigure]:
    rows: tuple[tuple[dict[str, Any], float | None, str], ...] = (
        ({"shortcut": "zero_pad"}, 6.61, ""),
        ({"shortcut": "constant_scaling", "shortcut_scale": 0.5, "branch_scale": 1.0}, None, ""),
        (
            {"shortcut": "constant_scaling", "shortcut_scale": 0.5, "branch_scale": 0.5},
            12.35,
            "frozen gating",
        ),
        ({"shortcut": "exclusive_gating", "gate_bias": -6.0}, 8.70, "best of biases 0 to -10"),
        ({"shortcut": "exclusive_gating", "gate_bias": -7.0}, 9.81, ""),
        ({"shortcut": "shortcut_gating", "gate_bias": 0.0}, 12.86, ""),
        ({"shortcut": "shortcut_gating", "gate_bias": -6.0}, 6.91, ""),
        ({"shortcut": "conv"}, 12.22, ""),
        ({"shortcut": "dropout"}, None, "dropout 0.5"),
        *(
            ({"shortcut": "exclusive_gating", "gate_bias": bias}, None, "biases 0 to -5 fail")
            for bias in (0.0, -1.0, -2.0, -3.0, -4.0, -5.0)
        ),
    )
    return [
        PaperFigure(
            "He et al. 2016, Table 1",
            error,
            "median of 5",
            _he("shortcut", ResNet(110, **fields), warmup=True),
            note=note,
        )
        for fields, error, note in rows
    ]


def _he2016_orders() -> list[PaperFigure]:
    rows: dict[str, tuple[float, float]] = {
        "post": (6.61, 5.93),
        "bn_after_addition": (8.17, 6.50),
        "relu_before_addition": (7.84, 6.14),
        "relu_only_pre": (6.71, 5.91),
        "full_pre": (6.37, 5.46),
    }
    figures = []
    for order, errors in rows.items():
        for (depth, block), error in zip(
            ((110, "basic"), (164, "bottleneck")), errors, strict=True
        ):
            fields: dict[str, Any] = {"block": block, "order": order}
            protocol = _he("order", ResNet(depth, **fields), warmup=True)
            figures.append(PaperFigure("He et al. 2016, Table 2", error, "median of 5", protocol))
    return figures


def _he2016_deep() -> list[PaperFigure]:
    cifar100 = CIFAR100(normalization="pixel")
    rows: tuple[tuple[int, Any, TFDS | None, float, float | None, str], ...] = (
        (1001, "full_pre", None, 4.89, 0.14, "mean of 5"),
        (1001, "post", None, 7.61, None, "median of 5"),
        (164, "full_pre", cifar100, 24.33, None, "median of 5"),
        (164, "post", cifar100, 25.16, None, "median of 5"),
        (1001, "full_pre", cifar100, 22.68, 0.22, "mean of 5"),
        (1001, "post", cifar100, 27.82, None, "median of 5"),
    )
    return [
        PaperFigure(
            "He et al. 2016, Tables 3 and 4",
            error,
            statistic,
            _he("deep", ResNet(depth, block="bottleneck", order=order), warmup=True, data=data),
            std,
        )
        for depth, order, data, error, std, statistic in rows
    ]


def _zagoruyko2016() -> list[PaperFigure]:
    """Table 5, without dropout, for pictures normalised by mean and standard deviation."""
    note = "the paper fills the border of its crops with reflections, and here it is zero"
    return [
        PaperFigure(
            "Zagoruyko & Komodakis 2016, Table 5",
            error,
            "median of 5",
            Experiment(
                name="wrn",
                model=ResNet(depth, widening=widening, order="full_pre"),
                data=CIFAR10(normalization="channel"),
                batch_size=128,
                epochs=200,
                optimizer=SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
                schedule=StepDecay(boundaries=(0.3, 0.6, 0.8), factor=0.2),
            ),
            note=note,
        )
        for depth, widening, error in ((40, 4, 4.53), (16, 8, 4.27), (28, 10, 4.00))
    ]


def _huang2017() -> list[PaperFigure]:
    plain: dict[str, Any] = {"bottleneck": False, "compression": 1.0}
    # The paper's names for its data: C10+ and C100+ have augmentation, C10 and C100 do not.
    columns = ("C10", "C10+", "C100", "C100+")
    rows: tuple[tuple[DenseNet, tuple[float | None, ...]], ...] = (
        (DenseNet(40, 12, **plain), (7.00, 5.24, 27.55, 24.42)),
        (DenseNet(100, 12, **plain), (5.77, 4.10, 23.79, 20.20)),
        (DenseNet(100, 24, **plain), (5.83, 3.74, 23.42, 19.25)),
        (DenseNet(100, 12), (5.92, 4.51, 24.15, 22.27)),
        (DenseNet(250, 24), (5.19, 3.62, 19.64, 17.60)),
        (DenseNet(190, 40), (None, 3.46, None, 17.18)),
    )
    table = "Huang et al. 2017, Table 2"
    return [
        PaperFigure(table, error, "one run", _huang(model, column))
        for model, errors in rows
        for column, error in zip(columns, errors, strict=True)
        if error is not None
    ]


def _huang(model: DenseNet, column: str) -> Experiment:
    """The protocol of Huang et al. 2017, section 4.2: dropout 0.2 without augmentation."""
    augmented = column.endswith("+")
    fields: dict[str, Any] = {} if augmented else {"crop_padding": 0, "flip": False}
    data = (CIFAR100 if "100" in column else CIFAR10)(normalization="channel", **fields)
    if not augmented:
        model = dataclasses.replace(model, dropout_rate=0.2)
    return Experiment(
        name="densenet",
        model=model,
        data=data,
        batch_size=64,
        epochs=300,
        optimizer=SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
        schedule=StepDecay(boundaries=(0.5, 0.75), factor=0.1),
    )
