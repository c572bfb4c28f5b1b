"""Small DenseNets on the digits: Huang et al. 2017, Table 2, with and without BC.

python scripts/sweep.py experiments/huang2017/table2_digits.py --jobs 2
python scripts/report.py sweeps/huang2017-table2-digits-* --diagnostics
"""

from resflax import SGD, Cosine, DenseNet, Digits, Experiment, Grid

experiment = Experiment(
    name="huang2017-table2-digits",
    model=DenseNet(depth=16, growth_rate=12),
    data=Digits(),
    batch_size=64,
    epochs=20,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    schedule=Cosine(warmup_steps=20),
    log_every=40,
    evaluate_every=40,
    checkpoint_every=200,
)
sweep = Grid(
    {
        "model": [
            DenseNet(10, 12, bottleneck=False, compression=1.0),
            DenseNet(16, 12, bottleneck=False, compression=1.0),
            DenseNet(16, 12),
            DenseNet(28, 12),
        ],
        "seed": range(5),
    }
)
