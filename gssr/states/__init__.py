"""The recurrent states of the frozen model: look at, capture, save, blend, inject, steer."""
