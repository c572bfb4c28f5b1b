"""ResNet-56 on CIFAR-10: He et al. 2015, section 4.2 and Table 6 (test error 6.97 %).

    python scripts/train.py experiments/he2015/resnet56_cifar10.py

The paper also has the depths 20, 32 and 44 (--model.depth). Its learning rates were chosen with
5,000 of the training examples held out (--data.validation 5000). It trained on two GPUs, so batch
norm saw 64 examples at a time; `batch_norm="per_device"` on two devices does the same.
"""

from resflax import CIFAR10, SGD, Experiment, ResNet, StepDecay

experiment = Experiment(
    name="he2015-cifar10-resnet56",
    model=ResNet(depth=56, shortcut="zero_pad"),
    data=CIFAR10(normalization="pixel"),
    batch_size=128,
    steps=64_000,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=StepDecay(boundaries=(32_000, 48_000), factor=0.1),
)
