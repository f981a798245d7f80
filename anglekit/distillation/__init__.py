"""Making students: layer matching, student construction, losses, trainer and sweep."""
