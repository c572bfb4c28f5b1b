"""DenseNets without augmentation: Huang et al. 2017, Table 2 (columns C10 and C100).

    python scripts/sweep.py experiments/huang2017/table2_unaugmented_cifar.py
    python scripts/report.py sweeps/huang2017-table2-unaugmented-cifar-*

Dropout of 0.2 follows every convolution except the first (section 4.2). The paper has no figures
without augmentation for DenseNet-BC (L=190, k=40).
"""

from resflax import CIFAR10, CIFAR100, SGD, DenseNet, Experiment, Grid, StepDecay

experiment = Experiment(
    name="huang2017-table2-unaugmented-cifar",
    model=DenseNet(depth=100, growth_rate=12, dropout_rate=0.2),
    data=CIFAR10(normalization="channel", crop_padding=0, flip=False),
    batch_size=64,
    epochs=300,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    schedule=StepDecay(boundaries=(0.5, 0.75), factor=0.1),
)
sweep = Grid(
    {
        "model": [
            DenseNet(40, 12, bottleneck=False, compression=1.0, dropout_rate=0.2),
            DenseNet(100, 12, bottleneck=False, compression=1.0, dropout_rate=0.2),
            DenseNet(100, 24, bottleneck=False, compression=1.0, dropout_rate=0.2),
            DenseNet(100, 12, dropout_rate=0.2),
            DenseNet(250, 24, dropout_rate=0.2),
        ],
        "data": [
            CIFAR10(normalization="channel", crop_padding=0, flip=False),
            CIFAR100(normalization="channel", crop_padding=0, flip=False),
        ],
    }
)
