"""Results in a store: saving, listing and opening them, with their history."""
