"""Checkpoint files of XCiT: what is in them, and the same network in another family's names and another format.

A file passes through steps, each a function in a file of its name, which fill in one :class:`reading.Reading`::

    open       checkpoint.py   a file ↔ named tensors; the formats themselves are in formats/
    unwrap     unwrap.py       which of the tensors are the network, and what stands beside it (beside.py)
    identify   identify.py     whose names these are, and which architecture
    settle     dialect.py      what the network computes
    translate  translate.py    the project's names and layout; the names of every family are in families.py
    check      check.py        numbers that no network can use
    write      rewrite.py      another family, another format; its configuration beside it (sidecar.py)

``weights.load`` runs them up to the check, ``inspection.inspect`` as far as they go, ``rewrite.rewrite`` all of them.
"""
