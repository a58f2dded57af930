"""Hubs' own clients, each run in a process and an environment of its own: what it may reach is checked in there.

``client.py`` is this side of the process, ``channel.py`` the other; ``openmind.py`` and ``modelscope.py`` say what is
asked of each client.
"""
