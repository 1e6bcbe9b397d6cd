"""Data: formats, decoding, preprocessing, augmentation and the loader."""
