"""Plain and residual nets by depth on CIFAR-10: He et al. 2015, Figure 6 and Table 6.

    python scripts/sweep.py experiments/he2015/figure6_cifar10.py
    python scripts/report.py sweeps/he2015-figure6-cifar10-*

The deeper the plain net, the higher its training error; residual nets gain from depth. ResNet-110,
which needs a warm-up, is in table6_cifar10.py. Of the plain net with 110 layers the paper says only
that its error is above 60 %.
"""

from resflax import CIFAR10, SGD, Experiment, Grid, ResNet, StepDecay

experiment = Experiment(
    name="he2015-figure6-cifar10",
    model=ResNet(depth=20, shortcut="zero_pad"),
    data=CIFAR10(normalization="pixel"),
    batch_size=128,
    steps=64_000,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=StepDecay(boundaries=(32_000, 48_000), factor=0.1),
)
sweep = Grid(
    {
        "model.shortcut": ["none", "zero_pad"],
        "model.depth": [20, 32, 44, 56],
        "seed": range(5),
    }
)
