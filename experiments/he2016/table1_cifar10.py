"""Kinds of shortcuts in ResNet-110 on CIFAR-10: He et al. 2016, Table 1 (medians of 5 runs).

python scripts/sweep.py experiments/he2016/table1_cifar10.py
python scripts/report.py sweeps/he2016-table1-cifar10-*
"""

from table1_variants import VARIANTS

from resflax import CIFAR10, SGD, Experiment, Grid, ResNet, StepDecay

experiment = Experiment(
    name="he2016-table1-cifar10",
    model=ResNet(depth=110),
    data=CIFAR10(normalization="pixel"),
    batch_size=128,
    steps=64_000,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=StepDecay(
        boundaries=(32_000, 48_000), factor=0.1, warmup_steps=400, warmup_learning_rate=0.01
    ),
)
sweep = Grid({"seed": range(5)}, variants=VARIANTS)
