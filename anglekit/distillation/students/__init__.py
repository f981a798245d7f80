"""From a teacher to a student: configuration, weights, adapters, low-rank corrections."""
