"""Pure masked losses, and the objective that a distilled student is trained for."""
