"""Results in, one self-contained HTML page out: no server, no network, nothing beside the file."""
