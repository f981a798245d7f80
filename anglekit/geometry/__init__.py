"""The mathematics of angles and similarities, on tensors alone: no files, no models, no settings of the shell."""
