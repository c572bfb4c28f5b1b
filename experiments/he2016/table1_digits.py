"""Kinds of shortcuts in ResNet-32 on the digits: He et al. 2016, Table 1.

python scripts/sweep.py experiments/he2016/table1_digits.py --jobs 2
python scripts/report.py sweeps/he2016-table1-digits-*
"""

from table1_variants import VARIANTS

from resflax import SGD, Cosine, Digits, Experiment, Grid, ResNet

experiment = Experiment(
    name="he2016-table1-digits",
    model=ResNet(depth=32),
    data=Digits(),
    batch_size=128,
    epochs=20,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=Cosine(warmup_steps=20),
    log_every=20,
    evaluate_every=20,
    checkpoint_every=100,
)
sweep = Grid({"seed": range(5)}, variants=VARIANTS)
