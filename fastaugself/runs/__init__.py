"""Run folders: their files, checkpoints and records, and the learner that a run trains."""
