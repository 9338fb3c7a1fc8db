"""Servers measured as their clients see them: processes that may be killed, load that is sent, what came of it."""
