"""Groups of scans: their index, what is entered into it, and results that lie beside it."""
