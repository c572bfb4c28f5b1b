"""ResNet-50 on ImageNet as torchvision's first weights (accuracy 76.130 / 92.862 %, one crop).

    python scripts/train.py experiments/imagenet/torchvision_v1_resnet50.py

torchvision's references/classification/train.py with its defaults: 90 epochs with batches of
8 x 32, a learning rate that is divided by 10 every 30 epochs, and no augmentation except random
resized crops and mirroring.
"""

from resflax import SGD, Experiment, ImageNet, ResNet, StepDecay

experiment = Experiment(
    name="torchvision-v1-imagenet-resnet50",
    model=ResNet(depth=50, layout="imagenet", stride_on="3x3"),
    data=ImageNet(),
    batch_size=256,
    epochs=90,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=StepDecay(boundaries=(30 / 90, 60 / 90), factor=0.1),
    evaluate_every=5_000,
    checkpoint_every=5_000,
)
