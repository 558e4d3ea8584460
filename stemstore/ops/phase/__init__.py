"""Centre of mass and what is made of it: derivatives, rotation, descan, differential phase contrast."""
