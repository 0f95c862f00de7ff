"""A run's needs in a folder, for a machine without a network; Python's own library alone."""
