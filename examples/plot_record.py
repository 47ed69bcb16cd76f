"""Draw a record of a store: python examples/plot_record.py MANIFEST RECORD IMAGE."""

import sys
from pathlib import Path

from pipeline.report.record_figure import draw_record
from store.manifest import Manifest
from store.reader import open_store

manifest, record, image = sys.argv[1:]
draw_record(open_store(Manifest.read(manifest).path), int(record), Path(image))
