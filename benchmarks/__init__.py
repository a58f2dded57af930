"""Speed and memory beside the peers: ``python -m benchmarks``. Every contender runs in a process of its own."""
