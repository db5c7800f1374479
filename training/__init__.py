"""Training of the encoders: from a corpus to a checkpoint."""
