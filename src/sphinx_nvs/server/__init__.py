"""The HTTP API of an engine. The app is in `app.py`, what it promises in docs/reference/http-api.md."""
