"""`python -m prosl_lightning` is `prosl`."""

import sys

from prosl_lightning.cli import main

if __name__ == "__main__":
    sys.exit(main())
