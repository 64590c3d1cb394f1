"""Run folders: configuration, checkpoints, logs, and building and loading the learner."""
