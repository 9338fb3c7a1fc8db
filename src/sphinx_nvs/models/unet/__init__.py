"""The multi-view U-Net (SEVA's family), dense and with active tokens only, and its FLOPs."""
