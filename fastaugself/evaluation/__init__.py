"""What a representation kept: features and the probes on them."""
