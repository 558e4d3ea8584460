"""The job that writes counted scans into the files of other programs."""
