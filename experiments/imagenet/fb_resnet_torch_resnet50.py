"""ResNet-50 on ImageNet as fb.resnet.torch trains it (README: 24.01 / 7.02 %, one crop).

    python scripts/train.py experiments/imagenet/fb_resnet_torch_resnet50.py

Gross & Wilber 2016: 90 epochs with batches of 256, a learning rate that is divided by 10 every 30
epochs, Nesterov momentum, and weight decay on all parameters. Crops have a random area and random
proportions; colour jitter of 0.4 comes in random order, and lighting follows. The stride is on the
3x3 convolution.
"""

from resflax import SGD, Augmentation, Experiment, ImageNet, ResNet, StepDecay

experiment = Experiment(
    name="fb-resnet-torch-imagenet-resnet50",
    model=ResNet(depth=50, layout="imagenet", stride_on="3x3"),
    data=ImageNet(),
    augmentation=Augmentation(brightness=0.4, contrast=0.4, saturation=0.4, lighting=0.1),
    batch_size=256,
    epochs=90,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    schedule=StepDecay(boundaries=(30 / 90, 60 / 90), factor=0.1),
    evaluate_every=5_000,
    checkpoint_every=5_000,
)
