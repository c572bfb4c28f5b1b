"""Random changes of pictures and labels on the device, a file per kind."""
