"""Load over time, and a discrete-event simulation of devices that the real scheduler drives."""
