"""What the paper's released code computes, for comparison."""
