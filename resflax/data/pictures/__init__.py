"""Encoded pictures and their pixels: decoding, orientation, resizing, recognition."""
