"""What reaches the network: files, augmentation, batches."""
