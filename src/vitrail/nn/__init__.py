"""Parts: plain modules with plain arguments. This folder imports torch and `types` only."""
