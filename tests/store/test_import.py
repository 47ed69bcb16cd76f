import subprocess
import sys
from pathlib import Path

import store

ROOT = Path(store.__path__[0]).parent
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in (ROOT / "store").rglob("[a-z]*.py")
)


def test_no_module_of_the_store_loads_torch_or_the_pipeline() -> None:
    assert len(MODULES) > 10
    program = f"""
import importlib, sys
for name in {MODULES}: importlib.import_module(name)
loaded = [n for n in sys.modules if n.partition(".")[0] in ("torch", "pipeline", "stages")]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
