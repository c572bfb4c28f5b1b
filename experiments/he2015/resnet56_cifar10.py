"""ResNet-56 on CIFAR-10: He et al. 2015, section 4.2 and Table 6 (test error 6.97 %).

    python scripts/train.py experiments/he2015/resnet56_cifar10.py

The paper's other depths: --model.depth 20, 32, 44. Its learning rates were chosen with 5,000 of
the training examples held out: --data.validation 5000. Batch norm saw 64 examples at a time
there, half of the batch on each of two GPUs: `batch_norm="per_device"` on two devices.
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
