"""Scene and cameras in, frames out: the eight stages of a request. Read pipeline.py first."""
