"""Shortcuts A, B and C and no shortcuts in ResNet-20 on the digits: He et al. 2015, section 4.1.

python scripts/sweep.py experiments/he2015/shortcuts_digits.py --jobs 2
python scripts/report.py sweeps/he2015-shortcuts-digits-*
"""

from resflax import SGD, Cosine, Digits, Experiment, Grid, ResNet

experiment = Experiment(
    name="he2015-shortcuts-digits",
    model=ResNet(depth=20),
    data=Digits(),
    batch_size=128,
    epochs=20,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=Cosine(warmup_steps=20),
    log_every=20,
    evaluate_every=20,
    checkpoint_every=100,
)
sweep = Grid(
    {"model.shortcut": ["none", "zero_pad", "projection", "projection_all"], "seed": range(5)}
)
