"""Preparation of data sets for training, from the TFDS catalogue or from a folder of pictures.

A prepared set is a folder DATA_DIR/NAME/VERSION/ with array_record files and their sha256 sums.
Files that were finished before an interruption are kept.
"""
