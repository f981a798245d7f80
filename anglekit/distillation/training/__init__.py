"""`transformers.Trainer` with a teacher: trainer, callbacks, and checkpoints to resume from."""
