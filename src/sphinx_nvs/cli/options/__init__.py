"""Options of each command, as frozen dataclasses."""
