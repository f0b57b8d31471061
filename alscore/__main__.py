"""``python -m alscore`` is the ``alscore`` command."""

import sys

from .cli import main

sys.exit(main())
