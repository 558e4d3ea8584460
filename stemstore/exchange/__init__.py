"""The jobs that write for other programs: counted scans into their files, and references to frames."""
