"""WRN-28-10 on CIFAR-10: Zagoruyko & Komodakis 2016, Table 5 (test error 4.00 %).

    python scripts/train.py experiments/zagoruyko2016/wrn_28_10_cifar10.py

200 epochs with batches of 128, Nesterov momentum, and a learning rate of 0.1 that is multiplied by
0.2 after 60, 120 and 160 epochs. The paper also trains it with dropout: --model.dropout-rate 0.3.
Unlike in the paper, the border of a crop is zero and not a reflection of the picture.
"""

from resflax import CIFAR10, SGD, Experiment, ResNet, StepDecay

experiment = Experiment(
    name="zagoruyko2016-cifar10-wrn-28-10",
    model=ResNet(depth=28, widening=10, order="full_pre"),
    data=CIFAR10(normalization="channel"),
    batch_size=128,
    epochs=200,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    schedule=StepDecay(boundaries=(0.3, 0.6, 0.8), factor=0.2),
)
