"""Data at rest: a teacher's targets, stored once, read by many students.

    arrays -> encodings (lossy) -> validation (by the schema) -> writer + lock + journal -> files
    files (local | remote | cache) -> chunks | hdf5_source -> reader; order: which record is next

`arrays` is the table of what a store holds, `schema` its sizes and identity, `layout` where it
lies; `manifest` names a finished one, `verify` reads all of it, `audit` describes it; `metrics`
counts pixels, `errors` says what went wrong and what to do. Nothing here imports torch or pipeline.
"""
