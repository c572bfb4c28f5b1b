"""What the papers report, with the protocol behind each figure, as experiments of this package.

A figure's protocol is an `Experiment`, so how a run differs from it is the difference of two
declarations. A new paper is a function that returns its figures, and a line in `FIGURES`.

Sources: He et al. 2015 (arXiv 1512.03385), He et al. 2016 (arXiv 1603.05027), Huang et al. 2017
(arXiv 1608.06993). Errors are per cent of the test split, single crop, at the end of training.
"""

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Any

from resflax.declarations.data import CIFAR10, CIFAR100, TFDS, Streamed
from resflax.declarations.models import DenseNet, Model, ResNet
from resflax.declarations.optimization import SGD, StepDecay
from resflax.experiment import Experiment, differences

FAILED_ABOVE = 20.0
"""He et al. 2016 print "fail" for errors above this."""


@dataclass(frozen=True)
class PaperFigure:
    """One number of a paper."""

    where: str
    """Paper and table."""
    error: float | None
    """Per cent; None for a run that the paper calls failed (above 20 %)."""
    statistic: str
    """Of which runs: `one run`, `median of 5`, `mean of 5`, ..."""
    protocol: Experiment
    std: float | None = None
    note: str = ""

    @property
    def shown(self) -> str:
        """The number as the paper prints it."""
        if self.error is None:
            return f"fail (above {FAILED_ABOVE:.0f} %)"
        return f"{self.error:.2f}" + ("" if self.std is None else f" ± {self.std:.2f}") + " %"

    @property
    def described(self) -> str:
        """Data, split, schedule and what the number is of."""
        p, data = self.protocol, self.protocol.data
        cropped = isinstance(data, Streamed) or data.crop_padding > 0
        augmented = "augmented" if cropped or data.flip else "not augmented"
        parts = [
            f"{data.name} test split ({augmented} training pictures), one crop, last step",
            f"{self.statistic}, {_length(p)}, batch {p.batch_size}",
            self.note,
        ]
        return "; ".join(part for part in parts if part)


# Fields in which a run may differ from a figure's protocol and still be of the same protocol.
_FREE = (
    "name",
    "seed",
    "parallel",
    "precision",
    "log_every",
    "evaluate_every",
    "checkpoint_every",
    "data.type",
    "data.data_dir",
)


def deviations(figure: PaperFigure, experiment: Experiment) -> list[str]:
    """Where a run's protocol is not the paper's, as `batch_size: 128 != 64` (paper != run).

    Schedules of different types are not compared field by field.
    """
    paper = figure.protocol
    found = differences(paper, experiment)
    fields = {difference.split(":")[0]: difference for difference in found}
    if "schedule.type" in fields:
        fields = {n: d for n, d in fields.items() if n[:9] != "schedule." or n == "schedule.type"}
    if fields.keys() & {"steps", "epochs"}:
        fields = {n: d for n, d in fields.items() if n not in ("steps", "epochs")}
        fields["length"] = f"length: {_length(paper)} != {_length(experiment)}"
    return [difference for name, difference in fields.items() if name not in _FREE]


def _length(experiment: Experiment) -> str:
    if experiment.steps is not None:
        return f"{experiment.steps:,} steps"
    return f"{experiment.epochs:g} epochs"


def figure_of(experiment: Experiment) -> PaperFigure | None:
    """The figure of the same network whose protocol is nearest; None if no paper has it."""
    model = experiment.model.resolved()
    if isinstance(model, DenseNet):  # dropout is a part of the training
        model = dataclasses.replace(model, dropout_rate=0.0)
    known = [figure for figure in figures() if _bare(figure.protocol.model) == model]
    return min(known, key=lambda f: len(deviations(f, experiment)), default=None)


def _bare(model: Model) -> Model:
    model = model.resolved()
    return dataclasses.replace(model, dropout_rate=0.0) if isinstance(model, DenseNet) else model


@cache
def figures() -> tuple[PaperFigure, ...]:
    """All figures that are known."""
    return (*_he2015(), *_he2016_shortcuts(), *_he2016_orders(), *_he2016_deep(), *_huang2017())


def _he(name: str, model: Model, *, warmup: bool, data: TFDS | None = None) -> Experiment:
    """He et al. 2015, section 4.2; warm-up in ResNet-110 alone there, in all runs in 2016."""
    decay = {"boundaries": (32_000, 48_000), "factor": 0.1}
    warm = {"warmup_steps": 400, "warmup_learning_rate": 0.01} if warmup else {}
    fields: dict[str, Any] = decay | warm
    return Experiment(
        name=name,
        model=model,
        data=data or CIFAR10(normalization="pixel"),
        batch_size=128,
        steps=64_000,
        optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
        schedule=StepDecay(**fields),
    )


def _he2015() -> list[PaperFigure]:
    table, one = "He et al. 2015, Table 6", "one run"
    errors = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97}
    found = [
        PaperFigure(table, error, one, _he(f"resnet{depth}", ResNet(depth), warmup=False))
        for depth, error in errors.items()
    ]
    for depth, error, std, statistic, note in (
        (110, 6.61, 0.16, "mean of 5", "the best of the five is 6.43"),
        (1202, 7.93, None, one, ""),
    ):
        protocol = _he(f"resnet{depth}", ResNet(depth), warmup=True)
        found.append(PaperFigure(table, error, statistic, protocol, std, note))
    plain = "the paper draws plain nets in Figure 6 (left) and says of 110 layers only: above 60 %"
    protocol = _he("plain110", ResNet(110, shortcut="none"), warmup=True)
    found.append(PaperFigure("He et al. 2015, Figure 6", None, one, protocol, note=plain))
    return found


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
    found = []
    for order, errors in rows.items():
        for (depth, block), error in zip(
            ((110, "basic"), (164, "bottleneck")), errors, strict=True
        ):
            fields: dict[str, Any] = {"block": block, "order": order}
            protocol = _he("order", ResNet(depth, **fields), warmup=True)
            found.append(PaperFigure("He et al. 2016, Table 2", error, "median of 5", protocol))
    return found


def _he2016_deep() -> list[PaperFigure]:
    c100 = CIFAR100(normalization="pixel")
    rows: tuple[tuple[int, Any, TFDS | None, float, float | None, str], ...] = (
        (1001, "full_pre", None, 4.89, 0.14, "mean of 5"),
        (1001, "post", None, 7.61, None, "median of 5"),
        (164, "full_pre", c100, 24.33, None, "median of 5"),
        (164, "post", c100, 25.16, None, "median of 5"),
        (1001, "full_pre", c100, 22.68, 0.22, "mean of 5"),
        (1001, "post", c100, 27.82, None, "median of 5"),
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


def _huang2017() -> list[PaperFigure]:
    plain: dict[str, Any] = {"bottleneck": False, "compression": 1.0}
    # Without augmentation (C10, C100) and with it (C10+, C100+).
    rows: tuple[tuple[DenseNet, tuple[float | None, ...]], ...] = (
        (DenseNet(40, 12, **plain), (7.00, 5.24, 27.55, 24.42)),
        (DenseNet(100, 12, **plain), (5.77, 4.10, 23.79, 20.20)),
        (DenseNet(100, 24, **plain), (5.83, 3.74, 23.42, 19.25)),
        (DenseNet(100, 12), (5.92, 4.51, 24.15, 22.27)),
        (DenseNet(250, 24), (5.19, 3.62, 19.64, 17.60)),
        (DenseNet(190, 40), (None, 3.46, None, 17.18)),
    )
    found = []
    for model, errors in rows:
        for kind, error in zip(("C10", "C10+", "C100", "C100+"), errors, strict=True):
            if error is not None:
                protocol = _huang(model, kind)
                found.append(PaperFigure("Huang et al. 2017, Table 2", error, "one run", protocol))
    return found


def _huang(model: DenseNet, kind: str) -> Experiment:
    """Huang et al. 2017, section 4.2: dropout 0.2 where nothing is augmented."""
    augmented = kind.endswith("+")
    fields: dict[str, Any] = {} if augmented else {"crop_padding": 0, "flip": False}
    data = (CIFAR100 if "100" in kind else CIFAR10)(normalization="channel", **fields)
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
