"""`python -m app.access NAME`: make an API key and the line that configures it."""

import sys

from app.api.auth import main

if __name__ == "__main__":
    sys.exit(main())
