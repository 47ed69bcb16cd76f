"""Open a store with xarray (pip install xarray): python examples/read_xarray.py MANIFEST."""

import sys
import warnings

import xarray as xr
from zarr.errors import ZarrUserWarning

from store.manifest import Manifest

# Of the journal and the lock, which lie beside the arrays.
warnings.filterwarnings("ignore", "Object at (journal|lock)", ZarrUserWarning)
store = xr.open_zarr(Manifest.read(sys.argv[1]).path, consolidated=False, chunks=None)
print(dict(store.sizes))
print(f"{store['key'][0].item()}: mean colour {store['image'][0].mean(('y', 'x')).values}")
