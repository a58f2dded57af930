"""Speed and memory beside the peers: ``xcit-hub bench``. Every contender runs in a process of its own."""
