"""DenseNet-BC (L=100, k=12) on CIFAR-10: Huang et al. 2017, Table 2 (test error 4.51 %, C10+).

    python scripts/train.py experiments/huang2017/densenet_bc_100_12_cifar10.py

Section 4.2: 300 epochs with batches of 64, Nesterov momentum, and a learning rate of 0.1 that is
divided by 10 after one half and three quarters of the training. Without augmentation (C10, 5.92 %)
the paper adds dropout: --data.crop-padding 0 --data.flip False --model.dropout-rate 0.2.
"""

from resflax import CIFAR10, SGD, DenseNet, Experiment, StepDecay

experiment = Experiment(
    name="huang2017-cifar10-densenet-bc-100-12",
    model=DenseNet(depth=100, growth_rate=12, bottleneck=True, compression=0.5),
    data=CIFAR10(normalization="channel"),
    batch_size=64,
    epochs=300,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    schedule=StepDecay(boundaries=(0.5, 0.75), factor=0.1),
)
