"""What runs the trials of a search: processes, their state on the disk, the journal."""
