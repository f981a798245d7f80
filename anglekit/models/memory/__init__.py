"""Models that a program holds in memory: without their wrappers, apart from each other, and of any class."""
