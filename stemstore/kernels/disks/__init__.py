"""Finding Bragg disks in one frame: from pixels to positions, heights and their errors."""
