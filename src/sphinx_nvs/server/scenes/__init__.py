"""Scenes that come in over HTTP: uploads, archives, cameras."""
