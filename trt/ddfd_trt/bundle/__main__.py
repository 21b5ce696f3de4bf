"""``python -m ddfd_trt.bundle``."""

from __future__ import annotations

import sys

from ddfd_trt.bundle.cli import main

if __name__ == "__main__":
    sys.exit(main())
