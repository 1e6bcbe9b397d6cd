"""Training: recipe in, run folder out."""
