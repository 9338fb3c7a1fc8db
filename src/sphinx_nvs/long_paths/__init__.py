"""Paths longer than one window: chunks, anchors and units, and the loop that runs them."""
