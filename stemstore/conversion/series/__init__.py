"""Converting the scans of one experiment."""
