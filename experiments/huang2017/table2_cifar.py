"""DenseNets on CIFAR-10 and CIFAR-100: Huang et al. 2017, Table 2 (columns C10+ and C100+).

    python scripts/sweep.py experiments/huang2017/table2_cifar.py
    python scripts/report.py sweeps/huang2017-table2-cifar-*

The columns without augmentation (C10, C100) are in table2_unaugmented_cifar.py.
"""

from resflax import CIFAR10, CIFAR100, SGD, DenseNet, Experiment, Grid, StepDecay

experiment = Experiment(
    name="huang2017-table2-cifar",
    model=DenseNet(depth=100, growth_rate=12),
    data=CIFAR10(normalization="channel"),
    batch_size=64,
    epochs=300,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    schedule=StepDecay(boundaries=(0.5, 0.75), factor=0.1),
)
sweep = Grid(
    {
        "model": [
            DenseNet(40, 12, bottleneck=False, compression=1.0),
            DenseNet(100, 12, bottleneck=False, compression=1.0),
            DenseNet(100, 24, bottleneck=False, compression=1.0),
            DenseNet(100, 12),
            DenseNet(250, 24),
            DenseNet(190, 40),
        ],
        "data": [CIFAR10(normalization="channel"), CIFAR100(normalization="channel")],
    }
)
