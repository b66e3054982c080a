"""How a Qwen2-VL-family model is run as a judge: from a pair's bytes to probabilities of grades.

    checkpoint.py   a folder in hub layout: found, checked, hashed
    layout.py       captions -> token ids
    pixels.py       images -> uint8 patches
    prepare.py      both of them: the half that runs in worker processes
    readout.py      the grades as a tree of tokens
    positions.py    where the tokens of packed rows stand
    segments.py     which of them see each other
    attention.py    attention inside each segment of a pack
    last_layer.py   the last layer, for the tokens that are read
    products.py     linear layers for a CPU
    blocks.py       layers of both towers for a CPU
    model.py        packed forward pass, greedy generation (generation.py)
    budget.py       how many tokens fit on a device
    loading.py      a checkpoint's weights -> a model on a device
    judge.py        a loaded judge: scores batches and checks itself

From attention.py on, they import torch; so does segments.py.
"""
