"""Diffusion sampling: noise levels, preconditioning, guidance and ODE solvers."""
