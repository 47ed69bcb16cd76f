"""Read a record of a store: python examples/read_store.py MANIFEST."""

import sys

from store.manifest import Manifest

manifest = Manifest.read(sys.argv[1])
reader = manifest.open()
record = reader.read([0], reader.arrays)
features, logits = (reader.decode(name, record) for name in ("features", "logits"))
print(f"{len(reader)} records of {', '.join(reader.spec.class_names)}")
print(f"{record['key'][0]}: features {features.shape}, logits {logits.shape}")
