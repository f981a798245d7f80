"""Many students over one teacher, which runs once a batch for all."""
