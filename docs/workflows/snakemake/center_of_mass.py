"""Save the centre of mass of every frame into the store, and print its mean and spread as JSON."""

import json
import sys

import stemstore


def main(store: str) -> None:
    """Compute, save and print."""
    ds = stemstore.open(store)
    saved = stemstore.save(stemstore.center_of_mass(ds), ds, "com", overwrite=True)
    facts = {"store": store, "units": saved.com_y.attrs.get("units")}
    for name in ("com_y", "com_x"):
        facts[name] = {"mean": float(saved[name].mean()), "standard_deviation": float(saved[name].std())}
    json.dump(facts, sys.stdout, indent=2)


if __name__ == "__main__":
    main(sys.argv[1])
