"""Figures of scores, and of what runs keep beside them."""
