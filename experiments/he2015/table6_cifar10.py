"""Residual nets on CIFAR-10: He et al. 2015, Table 6 (8.75, 7.51, 7.17, 6.97, 6.61 and 7.93 %).

    python scripts/sweep.py experiments/he2015/table6_cifar10.py
    python scripts/report.py sweeps/he2015-table6-cifar10-*

ResNet-110 starts with a learning rate of 0.01 (section 4.2: until the training error is below
80 %, about 400 steps). The paper does not say how ResNet-1202 starts; here it starts in the same
way.
"""

from resflax import CIFAR10, SGD, Experiment, Grid, ResNet, StepDecay

experiment = Experiment(
    name="he2015-table6-cifar10",
    model=ResNet(depth=20, shortcut="zero_pad"),
    data=CIFAR10(normalization="pixel"),
    batch_size=128,
    steps=64_000,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=StepDecay(boundaries=(32_000, 48_000), factor=0.1),
)
sweep = Grid(
    {
        ("model.depth", "schedule.warmup_steps", "schedule.warmup_learning_rate"): [
            (20, 0, 0.0),
            (32, 0, 0.0),
            (44, 0, 0.0),
            (56, 0, 0.0),
            (110, 400, 0.01),
            (1202, 400, 0.01),
        ],
        "seed": range(5),
    }
)
