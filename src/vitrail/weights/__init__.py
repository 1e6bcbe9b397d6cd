"""Weights on disk: the sealed model file."""
