"""Write tests/families/backend_matrix.json: every family behind every backend, measured against plain hooks.

`scripts/family_matrix.py` puts it into docs/families.md; `tests/families/test_backends.py` holds it to the measurement.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
FILE = ROOT / "tests" / "families" / "backend_matrix.json"


def main() -> None:
    """Measure and write."""
    from tests.helpers.backends import matrix
    from tests.helpers.tiny import FAMILIES

    FILE.write_text(json.dumps(matrix(list(FAMILIES)), indent=1) + "\n")
    print(FILE)


if __name__ == "__main__":
    main()
