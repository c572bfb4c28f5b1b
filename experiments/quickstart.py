"""ResNet-20 on handwritten digits: all of resflax in a minute, without a download.

python scripts/train.py experiments/quickstart.py
"""

from resflax import SGD, Cosine, Digits, Experiment, ResNet

experiment = Experiment(
    name="quickstart",
    model=ResNet(depth=20, shortcut="zero_pad"),
    data=Digits(),
    batch_size=64,
    epochs=30,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=5e-4),
    schedule=Cosine(warmup_steps=50),
    log_every=50,
    evaluate_every=200,
    checkpoint_every=350,
)
