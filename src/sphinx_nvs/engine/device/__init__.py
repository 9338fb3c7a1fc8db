"""One device: its models, scenes, contexts and frames, and the units it computes."""
