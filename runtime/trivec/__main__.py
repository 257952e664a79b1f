"""`python -m trivec`: the command line."""

import sys

from trivec._cli.main import main

if __name__ == "__main__":
    sys.exit(main())
