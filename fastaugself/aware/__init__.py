"""Methods that learn from augmentation parameters, one per file: AugSelf, CASSLE."""
