"""The HTTP application: wire types, routes, progress events, limits, client."""
