"""From a prepared TFDS set to uint8 batches, and their augmentation on the device."""
