"""Data in motion, in the order an image meets it.

    datasets     images and labels on disk -> Index, Sample
    views        one replayable crop, scale, flip of a sample
    teacher      DeepLabV3-ResNet101: trained, downloaded or loaded; run once
    extraction   views through the teacher into the store, unit by unit; parallel: by many workers
    -- from here on, no teacher --
    stream       records of the store -> Batch, in a pure, resumable order; augmentation: windows of
                 them; flight: what they take of memory on their way
    students     the small networks
    losses       one file per published method; pure functions
    companions   what a term keeps beside the student: projectors, memory (queues, bank), a critic
    terms        every term by name: what it reads, what it keeps, how it is computed
    objective    the weighted terms of one run
    training     one training loop, a generator of reports
    evaluation   full-size predictions -> one confusion matrix
    report       everything measured -> one HTML page

Beside the route: params and recipe (params.yaml, checked; made of frozen models), methods (bundles
of terms), serving (which of them a store can teach), network (what teacher and students share),
regions (embeddings by class), optimisation (what moves the weights), ranks (the processes of one
training), loading, checkpoint, randomness, provenance; and to compare and to measure: live (a
teacher in the loop), trial (a training outside the stages), fidelity, amortisation, planning,
benchmarks.
"""
