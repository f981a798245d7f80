"""What figure families share: panels, styles, words, selection."""
