"""Data in motion, in the order an image meets it.

    datasets    images and labels on disk -> Index, Sample
    views       one replayable crop, scale, flip of a sample
    teacher     DeepLabV3-ResNet101: trained, downloaded or loaded; run once
    extraction  views through the teacher into the store, unit by unit
    -- from here on, no teacher --
    stream      records of the store -> Batch, in a pure, resumable order
    students    the small networks
    queues      class-aware memories of teacher embeddings
    losses      one file per published method; pure functions
    objective   the weighted terms of one run
    training    one optimisation loop, a generator of reports
    evaluation  full-size predictions -> one confusion matrix
    report/     everything measured -> one HTML page

Beside the route: params (params.yaml, checked), methods (terms by name), network (what teacher and
students share), regions (embeddings by class), memory (the queues of a run), live (a teacher in the
loop, to compare with), loading, planning, provenance, randomness, checkpoint.
"""
