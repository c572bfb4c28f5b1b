"""The plain twin of ResNet-56 on CIFAR-10: He et al. 2015, section 4.2 and Figure 6 (left).

    python scripts/train.py experiments/he2015/plain56_cifar10.py

Network, data and training are those of resnet56_cifar10.py, without the shortcuts. The paper plots
depths 20, 32, 44 and 56 (--model.depth): the deeper the plain net, the higher its error.
"""

from resflax import CIFAR10, SGD, Experiment, ResNet, StepDecay

experiment = Experiment(
    name="he2015-cifar10-plain56",
    model=ResNet(depth=56, shortcut="none"),
    data=CIFAR10(normalization="pixel"),
    batch_size=128,
    steps=64_000,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=StepDecay(boundaries=(32_000, 48_000), factor=0.1),
)
