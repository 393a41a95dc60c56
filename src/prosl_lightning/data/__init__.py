"""Raw files to one archive to batches on the device."""
