"""A small HTTP server that takes images and answers classes (extra ``xcit-hub[serve]``)."""
