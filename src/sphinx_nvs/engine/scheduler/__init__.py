"""The scheduler and its parts: feasibility, fairness, price corrections, quotes. Pure: no clock, no I/O."""
