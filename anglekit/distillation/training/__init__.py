"""`transformers.Trainer` with a teacher: settings, trainer, callbacks."""
