"""Requests over time: accepted, scheduled step by step, carried out by devices, stored; no HTTP."""
