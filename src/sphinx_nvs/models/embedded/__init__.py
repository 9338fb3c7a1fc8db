"""The embedded pair: its networks and the weights that the package ships."""
