"""Angles in parameter space: the gradients that losses send into a student's weights, and the angles between them."""
