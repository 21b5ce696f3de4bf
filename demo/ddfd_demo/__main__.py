"""Entry of ``python -m ddfd_demo``."""

from __future__ import annotations

import sys

from ddfd_demo.main import main

if __name__ == "__main__":
    sys.exit(main())
