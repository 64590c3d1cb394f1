"""The training loop, optimizers, torch.compile, logging and checks."""
