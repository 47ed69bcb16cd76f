"""Data at rest: what the teacher said, stored once, read by many students.

    schema (what is stored) -> encodings (lossy) -> writer + journal -> files on disk
    files on disk -> reader -> order (which record next) -> the trainer's stream

`layout` names the files, `chunks` reads one of them, `manifest` names a finished store, `audit` and
`verify` prove it whole, `hdf5` carries it elsewhere, `metrics` counts pixels, `errors` says what
went wrong. Nothing here imports torch or the pipeline.
"""
