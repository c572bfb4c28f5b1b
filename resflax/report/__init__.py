"""Reports: run folders in, one self-contained page and its tables out. Free of JAX."""
