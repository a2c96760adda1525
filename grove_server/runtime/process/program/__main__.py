"""Entry point of the launcher program; see the package."""

import os
import sys

# Isolated mode leaves out the script's folder. Ours comes last, so that nothing in it hides the standard library.
sys.path.append(os.path.abspath(f"{os.path.dirname(__file__)}/../../../.."))

from grove_server.runtime.process.program.launcher import main

if __name__ == "__main__":
    main(sys.argv)
