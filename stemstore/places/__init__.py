"""Places on other machines: what may be seen of an address, the way there, and what its failures mean."""
