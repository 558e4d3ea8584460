"""The demonstration: a synthetic scan through the whole main job, compared with its truth, as a small report."""
