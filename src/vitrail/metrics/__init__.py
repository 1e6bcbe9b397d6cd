"""Metrics: thin adapters over scikit-learn; own code only where no library has it."""
