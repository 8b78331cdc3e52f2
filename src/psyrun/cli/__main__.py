"""``python -m psyrun.cli``: the psy command."""

import sys

from psyrun.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
