"""Data sets: preparation, reading, decoding, crops, augmentation and normalisation."""
