"""Plays seeds of copies of one storage; prints how fast, and the first one that breaks a promise."""

import sys

from tests.simulation.copies.play import play
from tests.simulation.main import main

if __name__ == "__main__":
    sys.exit(main(play, "tests/simulation/copies/run", __doc__ or ""))
