"""`transformers.Trainer` with a teacher: trainer, callbacks, checkpoints of a training that goes on."""
