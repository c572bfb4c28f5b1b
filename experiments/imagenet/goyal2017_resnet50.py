"""ResNet-50 on ImageNet in batches of 8,192: Goyal et al. 2017, section 5 (23.74 +- 0.09 %).

    python scripts/train.py experiments/imagenet/goyal2017_resnet50.py

arXiv 1706.02677, Table 1. The learning rate is 0.1 for each 256 pictures of a batch, which makes
3.2. It rises to that from 0.1 in 5 epochs (782 steps), and is divided by 10 after 30, 60 and 80 of
90 epochs. Batch norm has no weight decay, and the last scale of each unit starts at 0. Batch norm
sees 32 pictures at a time, which takes 32 micro-batches on 8 devices; on other numbers of devices,
change gradient_accumulation to 256 / devices. For batches of n pictures, the learning rate is
0.1 n / 256 and the warm-up has 6,405,835 / n steps. Unlike in the paper, the classifier's weights
are drawn as in all networks here, not with a standard deviation of 0.01.
"""

from resflax import SGD, Experiment, ImageNet, ResNet, StepDecay

experiment = Experiment(
    name="goyal2017-imagenet-resnet50",
    model=ResNet(depth=50, layout="imagenet", stride_on="3x3", zero_init_last_scale=True),
    data=ImageNet(),
    batch_size=8_192,
    gradient_accumulation=32,
    epochs=90,
    optimizer=SGD(
        learning_rate=3.2, momentum=0.9, nesterov=True, weight_decay=1e-4, no_weight_decay="norm"
    ),
    schedule=StepDecay(
        boundaries=(30 / 90, 60 / 90, 80 / 90),
        factor=0.1,
        warmup_steps=782,
        warmup_learning_rate=0.1,
        warmup="linear",
    ),
    batch_norm="per_device",
    evaluate_every=157,
    checkpoint_every=157,
)
