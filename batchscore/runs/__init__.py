"""What a run leaves behind: records, manifest, snapshot, and the publishing of staged files."""
