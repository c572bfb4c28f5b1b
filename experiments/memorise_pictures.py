"""ResNet-18 memorises a hundred photographs: a test of everything between the disk and the loss.

Point it at a prepared set of about a hundred training pictures, of any size and with any classes:

    python scripts/train.py experiments/memorise_pictures.py --data.name NAME --data.data-dir DIR

The training error goes to 0, whatever the pictures show. The test error means nothing.
"""

from resflax import SGD, Cosine, Experiment, ImageNet, ResNet

experiment = Experiment(
    name="memorise-pictures",
    model=ResNet(depth=18, layout="imagenet"),
    data=ImageNet(image_size=64, crop="center", flip=False, test_shorter_side=73),
    batch_size=25,
    epochs=12,
    optimizer=SGD(learning_rate=0.05, momentum=0.9, weight_decay=1e-4),
    schedule=Cosine(warmup_steps=8),
    log_every=8,
    evaluate_every=48,
    checkpoint_every=8,
)
