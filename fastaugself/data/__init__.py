"""The data pipeline from photos on disk to batches on the device: `.beton` files, readers, order, transfer."""
