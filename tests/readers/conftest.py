"""Let the tests of this folder import its encoders, under pytest's importlib mode too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
