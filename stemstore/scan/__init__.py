"""The lazy labelled scan: opening, the lazy array, coordinates, the xarray backend."""
