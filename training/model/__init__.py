"""Networks, their heads, and weights to start from."""
