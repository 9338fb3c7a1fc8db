"""Values and contracts that every room of the engine shares; imports nothing of the engine."""
