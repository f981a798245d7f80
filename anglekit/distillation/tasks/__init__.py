"""What is trained and scored: columns, model class, collator, metric of each kind of task."""
