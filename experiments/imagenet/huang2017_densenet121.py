"""DenseNet-121 on ImageNet: Huang et al. 2017, section 4.2 (Table 3: 25.02 / 7.71 %, one crop).

    python scripts/train.py experiments/imagenet/huang2017_densenet121.py

90 epochs with batches of 256, a learning rate of 0.1 that is divided by 10 after 30 and 60 epochs,
Nesterov momentum, and the augmentation of fb.resnet.torch. With 10 crops the paper has 23.61 /
6.66 %.
"""

from resflax import SGD, Augmentation, DenseNet, Experiment, ImageNet, StepDecay

experiment = Experiment(
    name="huang2017-imagenet-densenet121",
    model=DenseNet(depth=121, growth_rate=32, layout="imagenet"),
    data=ImageNet(),
    augmentation=Augmentation(brightness=0.4, contrast=0.4, saturation=0.4, lighting=0.1),
    batch_size=256,
    epochs=90,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    schedule=StepDecay(boundaries=(30 / 90, 60 / 90), factor=0.1),
    evaluate_every=5_000,
    checkpoint_every=5_000,
)
