"""The way of one image through a model, with its real numbers: a page for who learns."""
