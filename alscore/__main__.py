"""``python -m alscore`` is the ``alscore`` command."""

import sys

from alscore.cli import main

sys.exit(main())
