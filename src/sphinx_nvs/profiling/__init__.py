"""Offline: measures what plans cost and what they lose, and fits the rules that the planner reads."""
