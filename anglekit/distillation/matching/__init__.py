"""Which teacher layer teaches which student layer, planned before anything is computed."""
