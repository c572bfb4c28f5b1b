"""Random changes of training images and labels, computed on the device."""
