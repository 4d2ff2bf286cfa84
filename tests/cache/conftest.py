"""Makes `cache_cases` importable by the tests beside it, however pytest is started."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
