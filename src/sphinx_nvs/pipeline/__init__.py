"""Scene and cameras in, frames out: where the eight steps of a request meet."""
