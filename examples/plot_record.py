"""Draw a record of a store: python examples/plot_record.py MANIFEST RECORD IMAGE."""

import sys
from pathlib import Path

from pipeline.report.record_figure import draw_record
from store.manifest import Manifest

manifest, record, image = sys.argv[1:]
draw_record(Manifest.read(manifest).open(), int(record), Path(image))
