"""Devices, where they run: in the engine's own process (`inline`), or each in its own (`pool`). See `parts.Devices`.

The engine sends a device one command after another, and gets one report for each, in order. No HTTP here, no rows. A
worker's process imports this package before anything else, so nothing heavy may be imported by it.
"""
