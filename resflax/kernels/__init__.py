"""Convolutions of our own for CPUs, in C++ (`source/`), called through XLA's foreign functions."""
