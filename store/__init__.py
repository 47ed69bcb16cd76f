"""Data at rest: what the teacher said, stored once, read by many students.

    arrays -> encodings/ (lossy) -> fit (hold against the schema) -> writer + lock + journal -> files
    files (local | remote | cache) -> chunks | hdf5 -> reader -> order (which record next) -> stream

`schema` says what a store holds and `layout` where it lies; `manifest` names a finished one,
`verify` proves it whole, `audit` describes it; `metrics` counts pixels, `errors` says what went
wrong and what to do. Nothing here imports torch or the pipeline.
"""
