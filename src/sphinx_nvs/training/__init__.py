"""Training of the embedded pair: the denoiser, its reference decoder, and the network that makes frames agree.

    samples, batches, spoiling, rendering   procedural scenes and captures as training samples
    pools, packets, stream, workers         where samples come from: files, other processes, or made as training goes
    state                                   one run: optimiser, schedule, averaged weights, checkpoints
    pair, decoder, agreement                the losses, one file per network
    validation, precision                   held-out figures, and arithmetic in bfloat16

Nothing else in the package imports it; `scripts/train_pair.py` is its command line.
"""
