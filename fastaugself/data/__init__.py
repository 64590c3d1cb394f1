"""Photos on disk to batches on the device: writing `.beton` files, reading them, and the order of an epoch."""
