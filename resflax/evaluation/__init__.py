"""Measures trained networks as the papers do, and predicts classes of a person's own pictures."""
