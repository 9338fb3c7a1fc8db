"""SEVA from its public checkpoints: network, autoencoder, image embedder."""
