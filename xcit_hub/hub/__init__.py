"""Hubs: an id becomes a network, a checkpoint becomes an entry, whichever place holds the models."""
