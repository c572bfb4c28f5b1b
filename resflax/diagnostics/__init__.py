"""Diagnostics of what happens inside a network. They return numbers; `report` draws them.

Each file answers one question about an `InspectedNetwork`. Only `inspected` runs the network and
reads its layers.
"""
