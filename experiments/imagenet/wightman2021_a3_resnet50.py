"""ResNet-50 on ImageNet by procedure A3 of ResNet Strikes Back (accuracy 78.1 %, one crop).

    python scripts/train.py experiments/imagenet/wightman2021_a3_resnet50.py

Wightman et al. 2021 (arXiv 2110.00476), Table 2: the cheap procedure, 100 epochs with batches of
2,048 at 160 pixels, tested at 224. LAMB at 0.008; half a cosine after 5 epochs of warm-up (3,128
steps); binary cross-entropy, in which each class of a mixed picture counts in full; mixup or
cutmix; RandAugment of 6 +- 0.5; tests on 95 % of the picture. Unlike in the paper, the learning
rate begins and ends at 0. The paper's devices had 512 pictures at a time; --gradient-accumulation 4
does the same on one device.
"""

from resflax import LAMB, Augmentation, Cosine, Experiment, ImageNet, ResNet

experiment = Experiment(
    name="wightman2021-a3-imagenet-resnet50",
    model=ResNet(depth=50, layout="imagenet", stride_on="3x3", zero_init_last_scale=True),
    data=ImageNet(training_sizes=(160,), test_shorter_side=235),
    augmentation=Augmentation(
        policy="rand_augment_increasing",
        policy_magnitude=6,
        policy_magnitude_std=0.5,
        policy_probability=0.5,
        mixup=0.1,
        cutmix=1.0,
        target_threshold=0.2,
    ),
    loss="binary_cross_entropy",
    batch_size=2_048,
    epochs=100,
    optimizer=LAMB(learning_rate=8e-3, weight_decay=0.02, no_weight_decay="norm_and_bias"),
    schedule=Cosine(warmup_steps=3_128),
    precision="bfloat16",
    evaluate_every=3_130,
    checkpoint_every=1_000,
)
