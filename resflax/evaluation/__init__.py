"""Trained networks measured as the papers do, and their predictions for pictures of one's own."""
