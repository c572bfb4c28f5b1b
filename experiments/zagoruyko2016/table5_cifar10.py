"""Wide residual networks on CIFAR-10: Zagoruyko & Komodakis 2016, Table 5 (medians of 5 runs).

python scripts/sweep.py experiments/zagoruyko2016/table5_cifar10.py
python scripts/report.py sweeps/zagoruyko2016-table5-cifar10-*
"""

from resflax import CIFAR10, SGD, Experiment, Grid, ResNet, StepDecay

experiment = Experiment(
    name="zagoruyko2016-table5-cifar10",
    model=ResNet(depth=28, widening=10, order="full_pre"),
    data=CIFAR10(normalization="channel"),
    batch_size=128,
    epochs=200,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    schedule=StepDecay(boundaries=(0.3, 0.6, 0.8), factor=0.2),
)
sweep = Grid({("model.depth", "model.widening"): [(40, 4), (16, 8), (28, 10)], "seed": range(5)})
