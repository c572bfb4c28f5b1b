"""ResNet-50 on ImageNet by procedure A2 of ResNet Strikes Back (accuracy 79.8 %, one crop).

    python scripts/train.py experiments/imagenet/wightman2021_a2_resnet50.py

Wightman et al. 2021 (arXiv 2110.00476), Table 2: 300 epochs with batches of 2,048; LAMB at 0.005;
half a cosine after 5 epochs of warm-up (3,128 steps); binary cross-entropy, in which each class of
a mixed picture counts in full; mixup or cutmix; RandAugment of 7 +- 0.5; stochastic depth by
picture; tests on 95 % of the picture. Unlike in the paper, augmentation is not repeated, and the
learning rate begins and ends at 0. The paper's devices had 512 pictures at a time;
--gradient-accumulation 4 does the same on one device.
"""

from resflax import LAMB, Augmentation, Cosine, Experiment, ImageNet, ResNet

experiment = Experiment(
    name="wightman2021-a2-imagenet-resnet50",
    model=ResNet(
        depth=50,
        layout="imagenet",
        stride_on="3x3",
        zero_init_last_scale=True,
        stochastic_depth=0.05,
        stochastic_depth_by="picture",
    ),
    data=ImageNet(test_shorter_side=235),
    augmentation=Augmentation(
        policy="rand_augment_increasing",
        policy_magnitude=7,
        policy_magnitude_std=0.5,
        policy_probability=0.5,
        mixup=0.1,
        cutmix=1.0,
        target_threshold=0.2,
    ),
    loss="binary_cross_entropy",
    batch_size=2_048,
    epochs=300,
    optimizer=LAMB(learning_rate=5e-3, weight_decay=0.02, no_weight_decay="norm_and_bias"),
    schedule=Cosine(warmup_steps=3_128),
    precision="bfloat16",
    evaluate_every=3_130,
    checkpoint_every=1_000,
)
