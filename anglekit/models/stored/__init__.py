"""What a checkpoint's files hold besides plain weights: corrections of other weights, quantised ones, scales."""
