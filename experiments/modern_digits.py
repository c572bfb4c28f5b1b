"""ResNet-20 on the digits with every part of a modern recipe, for a laptop.

    python scripts/train.py experiments/modern_digits.py

The recipe is that of ResNet Strikes Back (experiments/imagenet/wightman2021_a3_resnet50.py). An
average of the weights, micro-batches and precise batch norm are added, and the augmentation is
weaker, because the pictures have only 8 x 8 pixels.
"""

from resflax import LAMB, Augmentation, Cosine, Digits, Experiment, ResNet

experiment = Experiment(
    name="modern-digits",
    model=ResNet(depth=20, zero_init_last_scale=True),
    data=Digits(),
    augmentation=Augmentation(
        policy="rand_augment_increasing",
        policy_layers=1,
        policy_magnitude=3,
        policy_magnitude_std=0.5,
        policy_probability=0.5,
        mixup=0.1,
        cutmix=1.0,
        mix_probability=0.5,
        label_smoothing=0.1,
    ),
    loss="binary_cross_entropy",
    batch_size=64,
    gradient_accumulation=2,
    epochs=60,
    optimizer=LAMB(learning_rate=1e-2, weight_decay=0.02),
    schedule=Cosine(warmup_steps=100),
    ema_decay=0.99,
    precise_batch_norm=20,
    log_every=100,
    evaluate_every=400,
    checkpoint_every=400,
)
