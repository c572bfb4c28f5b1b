"""A search for learning rate, weight decay and depth on the digits, judged on held-out examples.

python scripts/sweep.py experiments/search_digits.py --jobs 2
python scripts/report.py sweeps/search-digits-*
"""

from resflax import (
    SGD,
    Choice,
    Cosine,
    Digits,
    Experiment,
    Integers,
    LogUniform,
    ResNet,
    Search,
)

experiment = Experiment(
    name="search-digits",
    model=ResNet(depth=8, shortcut="zero_pad"),
    data=Digits(validation=300),
    batch_size=64,
    epochs=10,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4),
    schedule=Cosine(warmup_steps=20),
    log_every=20,
    evaluate_every=20,
    checkpoint_every=100,
)
sweep = Search(
    {
        "optimizer.learning_rate": LogUniform(0.003, 1.0),
        "optimizer.weight_decay": LogUniform(1e-5, 1e-2),
        "optimizer.nesterov": Choice([False, True]),
        "model.depth": Integers(8, 20, step=6),
    },
    trials=20,
)
