"""Pictures of plans, cameras, frames and figures."""
