"""MVSplat: posed photos to 3D Gaussians in one forward pass."""
