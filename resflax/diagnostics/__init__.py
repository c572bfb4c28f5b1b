"""Diagnostics: what happens inside a trained network. Numbers here; pictures in `report`.

Each file is one question, a function of a `Network`. How layers are found and read is in
`network` alone.
"""
