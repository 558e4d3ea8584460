"""Simulated Bragg patterns with known positions, and what may be expected of any method on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stemstore.kernels.disks.probe import Template, position_limit

DIFFUSE = 0.1  # of the electrons, evenly spread


@dataclass(frozen=True, eq=False)
class Pattern:
    """A lattice of disks.

    Attributes
    ----------
    radius, edge_width : px
    positions : shape (n, 2), px
        Row and column of the disks.
    share : shape (n,)
        Of all electrons, in every disk.
    image : shape (ky, kx)
        Expected electrons, of sum 1.
    """

    radius: float
    edge_width: float
    positions: np.ndarray
    share: np.ndarray
    image: np.ndarray

    @classmethod
    def lattice(
        cls, shape: tuple[int, int], radius: float, spacing: float, *, structure: float = 0.0, edge_width: float = 2.0
    ) -> Pattern:
        """Draw a turned square lattice under an envelope; waves of random length run over disks with `structure`."""
        rng, middle = np.random.default_rng(7), np.array(shape) / 2 - 0.2
        along, across = spacing * np.array([[np.cos(0.2), np.sin(0.2)], [-np.sin(0.2), np.cos(0.2)]])
        border = radius + 3
        grid = [middle + i * along + j * across for i in range(-9, 10) for j in range(-9, 10)]
        inside = [p for p in grid if (p > border).all() and (p < np.array(shape) - border - 1).all()]
        positions = np.array(inside)
        distance = np.hypot(*(positions - middle).T)
        weight = np.exp(-((distance / (0.293 * min(shape))) ** 2)) * rng.uniform(0.3, 1, len(positions))
        weight[distance.argmin()] = 10
        share = (1 - DIFFUSE) * weight / weight.sum()
        image = np.full(shape, DIFFUSE / (shape[0] * shape[1]))
        template, half = Template(radius, edge_width), int(radius + edge_width) + 3
        rows, columns = (np.indices((2 * half + 1, 2 * half + 1)) - half) * 8 / radius
        for position, part in zip(positions, share, strict=True):
            corner = np.floor(position).astype(int) - half
            stamp = template.draw((2 * half + 1, 2 * half + 1), tuple(position - corner))
            (ky, kx), phase = rng.normal(0, 0.35, 2), rng.uniform(0, 2 * np.pi)
            stamp *= 1 + structure * np.cos(ky * rows + kx * columns + phase)
            low, high = np.maximum(corner, 0), np.minimum(corner + 2 * half + 1, shape)
            cut = tuple(slice(a - c, b - c) for a, b, c in zip(low, high, corner, strict=True))
            image[low[0] : high[0], low[1] : high[1]] += part / stamp.sum() * stamp[cut]
        return cls(radius, edge_width, positions, share, image)

    def frames(self, dose: float, n: int, seed: int = 1) -> np.ndarray:
        """Count `dose` electrons a frame, uint16."""
        rng = np.random.default_rng(seed)
        frames = np.empty((n, *self.image.shape), np.uint16)
        for frame in frames:
            frame[...] = rng.poisson(dose * self.image)
        return frames

    def limit(self, dose: float, least: float) -> float:
        """Cramér-Rao bound of the RMS error per axis over all disks of at least so many electrons."""
        background = DIFFUSE * dose / self.image.size
        counts = self.share[self.share * dose >= least] * dose
        each = [position_limit(self.radius, self.edge_width, n, background) ** 2 for n in counts]
        return float(np.sqrt(np.mean(each))) if each else float("nan")


@dataclass(frozen=True)
class Score:
    """What a method found: recall of the disks of 30 electrons and more, precision of all, RMS errors per axis."""

    recall: float
    precision: float
    rms: float
    strong: float
    per_frame: float

    @classmethod
    def of(cls, lists: list[np.ndarray], pattern: Pattern, dose: float, within: float | None = None) -> Score:
        """Compare found positions, one array (n, 2 or more) per frame, with the true ones.

        A found disk is true within half a radius of a true one, of any intensity.
        """
        reach, counts = within or pattern.radius / 2, pattern.share * dose
        wanted, strong = counts >= 30, counts >= 300
        hits = true = found = 0
        errors, strong_errors = [np.empty((0, 2))], [np.empty((0, 2))]
        for disks in lists:
            if not len(disks):
                continue
            gap = np.hypot(*(disks[:, None, :2] - pattern.positions[None]).T)
            nearest, hit = gap.argmin(axis=1), gap.min(axis=1) < reach
            hits += int((hit & wanted).sum())
            true += int((gap.min(axis=0) < reach).sum())
            found += len(disks)
            error = disks[nearest, :2] - pattern.positions
            errors.append(error[hit & wanted])
            strong_errors.append(error[hit & strong])
        rms = [float(np.sqrt(np.mean(np.concatenate(part) ** 2))) for part in (errors, strong_errors)]
        return cls(hits / max(1, len(lists) * int(wanted.sum())), true / max(1, found), *rms, found / len(lists))
