"""Turns examples into batches on the devices: their order, reading, decoding and placement."""
