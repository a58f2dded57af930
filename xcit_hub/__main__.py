"""``python -m xcit_hub``: the command line, where the script ``xcit-hub`` is not on the path."""

from __future__ import annotations

from xcit_hub.cli import main

if __name__ == "__main__":
    main()
