"""Images of plans, cameras, frames and figures; HTML reports."""
