"""Models that can be plugged in: regressors, denoisers, their building blocks and the registry of their weights."""
