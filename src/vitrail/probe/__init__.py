"""What are weights worth on some data? Frozen features and simple classifiers answer in minutes."""
