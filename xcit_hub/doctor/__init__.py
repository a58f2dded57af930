"""What a machine has of what xcit-hub needs: ``xcit-hub doctor`` looks, ``xcit-hub doctor --accept`` runs."""
