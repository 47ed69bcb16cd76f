"""Data in motion, room by room, in the order an image meets them.

config        params.yaml, checked: every number, and the methods by name
runtime       what every room stands on: ranks, random streams, devices, precision, checkpoints
datasets      images and labels on disk -> Index, Sample; views: one crop, scale, flip of a sample
models        the teacher, the students, and what they share
extraction    views through the teacher into the store, unit by unit
-- from here on, no teacher --
loading       records of the store -> Batch, in a pure, resumable order
ops           what losses are made of
losses        one file per published method; pure functions
memory        the teacher embeddings that a step contrasts its pixels with
distillation  every term by name, what it keeps beside the student, the weighted terms of one run
training      one training loop, a generator of step results; runs that log, save, resume and stop
evaluation    full-size predictions -> one confusion matrix
report        everything measured -> one HTML page
benchmarks    what the project promises in figures, measured
"""
