"""What an experiment is made of: frozen dataclasses, checked when constructed, free of JAX."""
