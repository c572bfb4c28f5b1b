"""Orders of BN, ReLU and addition on CIFAR-10: He et al. 2016, Table 2 (ResNet-110 and -164).

python scripts/sweep.py experiments/he2016/table2_cifar10.py
python scripts/report.py sweeps/he2016-table2-cifar10-*
"""

from resflax import CIFAR10, SGD, Experiment, Grid, ResNet, StepDecay

experiment = Experiment(
    name="he2016-table2-cifar10",
    model=ResNet(depth=110, block="basic"),
    data=CIFAR10(normalization="pixel"),
    batch_size=128,
    steps=64_000,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=StepDecay(
        boundaries=(32_000, 48_000), factor=0.1, warmup_steps=400, warmup_learning_rate=0.01
    ),
)
sweep = Grid(
    {
        ("model.depth", "model.block"): [(110, "basic"), (164, "bottleneck")],
        "model.order": [
            "post",
            "bn_after_addition",
            "relu_before_addition",
            "relu_only_pre",
            "full_pre",
        ],
        "seed": range(5),
    }
)
