"""One file a figure family."""
