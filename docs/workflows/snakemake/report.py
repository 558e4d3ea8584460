"""Put the JSON documents of the steps together as one page."""

import json
import sys
from pathlib import Path


def main(finalise: str, virtual: str, com: str, validate: str) -> None:
    """Print the page."""
    stored, image, centre, checked = (
        json.loads(Path(path).read_text(encoding="utf-8")) for path in (finalise, virtual, com, validate)
    )
    extremes = f"{image['minimum']:.6g} to {image['maximum']:.6g} {image['units']}"
    lines = [
        f"# {Path(stored['url']).name}",
        "",
        f"- shape: {' x '.join(map(str, stored['shape']))}, {stored['profile']}",
        f"- stored: {stored['stored_bytes']} bytes of {stored['raw_bytes']}",
        f"- electrons: {stored['n_events']}",
        f"- virtual image: mean {image['mean']:.6g}, from {extremes}",
        f"- centre of mass: {centre['com_y']['mean']:.6g}, {centre['com_x']['mean']:.6g} {centre['units']}",
        f"- valid, every byte read: {'yes' if checked['valid'] else 'NO'}",
        *(f"- {one['severity']}: {one['key']}: {one['message']}" for one in checked["findings"]),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
