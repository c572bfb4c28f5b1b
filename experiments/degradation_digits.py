"""Deeper plain nets train worse, deeper residual nets do not: He et al. 2015, Figure 6, on digits.

    python scripts/sweep.py experiments/degradation_digits.py --jobs 2
    python scripts/report.py sweeps/degradation-digits-*

Compare the training losses, because the paper's claim is about training.
"""

from resflax import SGD, Cosine, Digits, Experiment, Grid, ResNet

experiment = Experiment(
    name="degradation-digits",
    model=ResNet(depth=56, shortcut="none"),
    data=Digits(),
    batch_size=128,
    epochs=20,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=Cosine(warmup_steps=20),
    log_every=20,
    evaluate_every=100,
    checkpoint_every=100,
)

sweep = Grid(
    {"model.depth": [8, 20, 32, 56, 110], "model.shortcut": ["none", "zero_pad"], "seed": range(5)}
)
