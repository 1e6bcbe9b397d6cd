"""Containers of weights: npz, safetensors, torch zips and pickles, read without trust."""
