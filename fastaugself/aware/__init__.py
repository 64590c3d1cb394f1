"""What learns from augmentation parameters, one a file: AugSelf, CASSLE."""
