"""Neural-network layers of the U-Net, dense and for active tokens only."""
