"""What each depth of a plain, a residual and a dense network knows about the digits.

    python scripts/sweep.py experiments/information_digits.py --jobs 2
    python scripts/report.py sweeps/information-digits-* --diagnostics

The protocol is that of degradation_digits.py. docs/information.md has the results.
"""

from resflax import SGD, Cosine, DenseNet, Digits, Experiment, Grid, ResNet

experiment = Experiment(
    name="information-digits",
    model=ResNet(depth=56, shortcut="none"),
    data=Digits(),
    batch_size=128,
    epochs=20,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=Cosine(warmup_steps=20),
    log_every=20,
    evaluate_every=100,
    checkpoint_every=1000,
)

sweep = Grid(
    {"seed": range(5)},
    variants=[
        {"name": "plain-56", "model": ResNet(56, shortcut="none")},
        {"name": "resnet-56", "model": ResNet(56, shortcut="zero_pad")},
        {"name": "densenet-40", "model": DenseNet(40, 12, bottleneck=False, compression=1.0)},
    ],
)
