"""Training: state, step, devices, checkpoints, log, and the loop that ties them together."""
