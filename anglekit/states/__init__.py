"""Hidden states of chosen layers."""
