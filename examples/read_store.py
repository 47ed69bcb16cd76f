"""Read a record of a store: python examples/read_store.py MANIFEST."""

import sys

from store.manifest import Manifest
from store.reader import open_store

manifest = Manifest.read(sys.argv[1])
reader = open_store(manifest.path, expected=manifest.fingerprint)
record = reader.read([0], reader.arrays)
features, logits = (reader.decode(name, record) for name in ("features", "logits"))
print(f"{len(reader)} records of {', '.join(reader.spec.class_names)}")
print(f"{record['key'][0]}: features {features.shape}, logits {logits.shape}")
