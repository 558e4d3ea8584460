"""Images, patterns and profiles: what is summed over the detector, over the scan or around the optic axis."""
