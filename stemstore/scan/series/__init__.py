"""Many scans of one experiment as one lazy array, or as a tree."""
