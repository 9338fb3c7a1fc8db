"""One device: models, scenes, contexts and frames that it holds, and the units it computes."""
