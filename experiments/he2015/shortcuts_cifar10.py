"""Shortcuts A, B and C in ResNet-56 on CIFAR-10: He et al. 2015, section 4.1 (there on ImageNet).

python scripts/sweep.py experiments/he2015/shortcuts_cifar10.py
python scripts/report.py sweeps/he2015-shortcuts-cifar10-*
"""

from resflax import CIFAR10, SGD, Experiment, Grid, ResNet, StepDecay

experiment = Experiment(
    name="he2015-shortcuts-cifar10",
    model=ResNet(depth=56),
    data=CIFAR10(normalization="pixel"),
    batch_size=128,
    steps=64_000,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=StepDecay(boundaries=(32_000, 48_000), factor=0.1),
)
sweep = Grid(
    {"seed": range(5)},
    variants=[
        {"name": "A: zero-padded identity", "model.shortcut": "zero_pad"},
        {"name": "B: projection where the shape changes", "model.shortcut": "projection"},
        {"name": "C: projection everywhere", "model.shortcut": "projection_all"},
    ],
)
