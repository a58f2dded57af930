"""A network (never an id) as a file that another runtime reads, and the proof of that file."""
