"""`python -m sphinx_nvs.cli` is `sphinx-nvs`."""

import sys

from sphinx_nvs.cli.main import main

sys.exit(main())
