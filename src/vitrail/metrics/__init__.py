"""Metrics: scikit-learn's where it has them; own code for bootstrap and calibration."""
