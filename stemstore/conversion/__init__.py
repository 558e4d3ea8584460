"""The job that turns a source into a store."""
