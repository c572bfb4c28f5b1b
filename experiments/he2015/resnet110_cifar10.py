"""ResNet-110 on CIFAR-10: He et al. 2015, Table 6 (test error 6.61 +- 0.16, best of five 6.43).

    python scripts/train.py experiments/he2015/resnet110_cifar10.py

The learning rate is 0.01 for the first 400 steps (section 4.2: until the training error is below
80 %).
"""

from resflax import CIFAR10, SGD, Experiment, ResNet, StepDecay

experiment = Experiment(
    name="he2015-cifar10-resnet110",
    model=ResNet(depth=110, shortcut="zero_pad"),
    data=CIFAR10(normalization="pixel"),
    batch_size=128,
    steps=64_000,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=StepDecay(
        boundaries=(32_000, 48_000), factor=0.1, warmup_steps=400, warmup_learning_rate=0.01
    ),
)
