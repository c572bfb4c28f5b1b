"""ResNet-50 on ImageNet: He et al. 2015, section 3.4 (Table 3: 22.85 / 6.71 % with 10 crops).

    python scripts/train.py experiments/imagenet/he2015_resnet50.py

60 x 10^4 steps with batches of 256. The paper divides the learning rate by 10 "when the error
plateaus"; here that is after 30, 60 and 90 epochs. The shorter side is drawn from 256 to 480,
colours vary as in AlexNet, and the stride is on the first 1x1 convolution. The authors' released
models have batch statistics that were measured after the training; here 51,200 pictures are taken
for that. Unlike in the paper, the mean that is subtracted is a constant for each channel, not the
mean of each pixel.
"""

from resflax import SGD, Augmentation, Experiment, ImageNet, ResNet, StepDecay

experiment = Experiment(
    name="he2015-imagenet-resnet50",
    model=ResNet(depth=50, layout="imagenet", shortcut="projection", stride_on="1x1"),
    data=ImageNet(crop="scale", shorter_side=(256, 480)),
    augmentation=Augmentation(lighting=0.1),
    batch_size=256,
    steps=600_000,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=StepDecay(boundaries=(0.25, 0.5, 0.75), factor=0.1),
    precise_batch_norm=200,
    evaluate_every=5_000,
    checkpoint_every=5_000,
)
