"""The study: does AugSelf, does CASSLE keep what its base method forgets? Pretraining, evaluation and its page."""
