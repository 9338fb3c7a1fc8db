"""Offline measurement of the time and the loss of plans, and fitting of the rules that the planner reads."""
